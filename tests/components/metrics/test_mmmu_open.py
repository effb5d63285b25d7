"""Free answers, judged as MMMU judges them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icltool.components.metrics.mmmu_open import MmmuOpen, candidates
from icltool.contracts import Metric

FIXTURE = Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json"


def test_it_equals_the_published_evaluator() -> None:
    cases = json.loads(FIXTURE.read_text())["mmmu_open"]
    assert len(cases) == 150
    answers = [case["answer"] if isinstance(case["answer"], list) else [case["answer"]] for case in cases]
    scores = MmmuOpen().score([case["text"] for case in cases], answers)
    assert scores.tolist() == [case["mmmu-open"] for case in cases]
    assert 0 < scores.mean() < 1


def test_what_an_answer_may_mean() -> None:
    assert candidates("So the result is 1,250.") == [1250.0, 1250.0, 250.0]
    assert candidates("a whale") == ["a whale"]
    assert candidates("the answer is x") == [" x", "x "]


def test_an_answer_without_references_is_wrong_and_lengths_must_agree() -> None:
    assert isinstance(MmmuOpen(), Metric)
    assert MmmuOpen().score(["12"], [[]]).tolist() == [0]
    with pytest.raises(ValueError, match="1 predictions, 2 lists"):
        MmmuOpen().score(["12"], [["12"], ["13"]])
