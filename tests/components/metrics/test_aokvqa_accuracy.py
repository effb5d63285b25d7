"""The accuracy of direct answers against figures of the official evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.components.metrics.accuracy import Accuracy
from icltool.components.metrics.aokvqa_accuracy import AokvqaAccuracy


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    fixture = Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json"
    return json.loads(fixture.read_text("utf-8"))["aokvqa"]


def test_every_question_and_both_figures(official: dict[str, Any]) -> None:
    rows = {row["question_id"]: row for row in official["rows"]}
    assert len(rows) == 60
    direct, expected = official["direct_answer"], official["direct-answer-per-question"]
    asked = [i for i in rows if i in expected]
    assert len(asked) == len(expected) == 55
    scores = AokvqaAccuracy().score([direct[i] for i in asked], [rows[i]["direct_answers"] for i in asked])
    np.testing.assert_allclose(scores, [expected[i] for i in asked], atol=1e-9)
    easy = [i for i, row in rows.items() if not row["difficult_direct_answer"]]
    answers = AokvqaAccuracy().score([direct.get(i, "") for i in easy], [rows[i]["direct_answers"] for i in easy])
    assert 100 * answers.mean() == pytest.approx(official["figures"]["direct-answer"], abs=1e-6)
    right = [row["choices"][row["correct_choice_idx"]] for row in rows.values()]
    chosen = [official["multiple_choice"].get(i, "") for i in rows]
    accuracy = Accuracy().score(chosen, [(text,) for text in right])
    assert 100 * accuracy.mean() == pytest.approx(official["figures"]["multiple-choice"], abs=1e-6)


def test_by_hand() -> None:
    answers = ("cab", "cab", "taxi", "Cab")
    assert AokvqaAccuracy().score(["cab", "Cab", "", "bus"], [answers] * 4).tolist() == [2 / 3, 1 / 3, 0.0, 0.0]
    assert AokvqaAccuracy().score(["cab"], [()]).tolist() == [0.0]
    with pytest.raises(ValueError, match="1 predictions, 2 lists"):
        AokvqaAccuracy().score(["a"], [(), ()])
