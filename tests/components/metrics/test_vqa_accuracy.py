"""VQA accuracy against figures of the official evaluation, question by question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.components.metrics import vqa_tables
from icltool.components.metrics.vqa_accuracy import (
    OpenFlamingoVQAAccuracy,
    TextVQAAccuracy,
    VizWizAccuracy,
    VQAAccuracy,
    normalise,
)
from icltool.contracts import Metric

FIXTURE = Path(__file__).parents[2] / "fixtures" / "vqa_accuracy.json"


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    return json.loads(FIXTURE.read_text(encoding="utf-8"))


def _scores(official: dict[str, Any]) -> np.ndarray:
    answers = [official["predictions"][str(a["question_id"])] for a in official["annotations"]]
    return VQAAccuracy().score(answers, [a["answers"] for a in official["annotations"]])


def test_every_question(official: dict[str, Any]) -> None:
    ours = {str(a["question_id"]): s for a, s in zip(official["annotations"], _scores(official), strict=True)}
    assert {q: round(100 * s, 2) for q, s in ours.items()} == official["expect"]["per_question"]
    assert len(ours) == 200


@pytest.mark.parametrize("kind", ["answer_type", "question_type"])
def test_means(official: dict[str, Any], kind: str) -> None:
    scores = 100 * _scores(official)
    assert round(scores.mean(), 2) == official["expect"]["overall"]
    for name, expected in official["expect"][f"per_{kind}"].items():
        chosen = np.array([a[kind] == name for a in official["annotations"]])
        assert round(scores[chosen].mean(), 2) == expected


def test_tables(official: dict[str, Any]) -> None:
    tables = official["tables"]
    assert tables["contractions"] == vqa_tables.CONTRACTIONS
    assert tables["number_words"] == vqa_tables.NUMBER_WORDS
    assert sorted(vqa_tables.ARTICLES) == sorted(tables["articles"])
    assert list(vqa_tables.PUNCTUATION) == tables["punctuation"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Dog.", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("t-shirt", "t shirt"),
        ("left, right", "left right"),
        ("red,white", "red white"),
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),
        ("1.5", "1.5"),
        ("U.S.", "us"),
        ("black & white", "black & white"),
        ("an", ""),
        ("." * 40, "." * 8),
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.integers(0, 10))
def test_agreement_counts_leaving_one_out(count: int) -> None:
    """The direct sum over the ten annotators."""
    annotators = ["dog"] * count + ["cat"] * (10 - count)
    direct = sum(min(1.0, (annotators[:i] + annotators[i + 1 :]).count("dog") / 3) for i in range(10)) / 10
    assert VQAAccuracy().accuracy("dog", annotators) == pytest.approx(direct, abs=1e-12)


def test_unanimous_annotators_are_compared_as_they_are() -> None:
    assert VQAAccuracy().accuracy("Dog", ["dog"] * 10) == 0.0
    assert VQAAccuracy().accuracy("Dog", ["dog"] * 9 + ["cat"]) == 1.0


def test_empty_answers_and_missing_references_score_zero_and_count() -> None:
    metric = VQAAccuracy()
    assert isinstance(metric, Metric)
    metric.fit([["unused"]])
    scores = metric.score(["", "dog", "dog"], [["dog"] * 10, [], ["dog"] * 10])
    assert scores.tolist() == [0.0, 0.0, 1.0]


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 predictions, 2"):
        VQAAccuracy().score(["a"], [["a"], ["b"]])


@pytest.mark.parametrize("kind", [VQAAccuracy, OpenFlamingoVQAAccuracy, TextVQAAccuracy, VizWizAccuracy])
def test_the_accuracy_of_each_evaluation_case_by_case(kind: type[VQAAccuracy]) -> None:
    cases = json.loads((FIXTURE.parent / "benchmarks_vqa_accuracy.json").read_text("utf-8"))["cases"]
    scores = kind().score([case["prediction"] for case in cases], [case["answers"] for case in cases])
    np.testing.assert_allclose(scores, [case[kind.name] for case in cases], atol=1e-9)
    assert len(cases) == 320


def test_what_sets_the_evaluations_apart() -> None:
    alike = ["Dog"] * 10
    assert (VQAAccuracy().accuracy("dog", alike), OpenFlamingoVQAAccuracy().accuracy("dog", alike)) == (0.0, 1.0)
    assert TextVQAAccuracy().accuracy("joe's", ["joe 's"] * 10) == 1.0
    assert VizWizAccuracy().accuracy("Dog", alike) == 0.0  # the annotators' answers stay as they are
    assert VizWizAccuracy().accuracy("a dog", ["dog"] * 9 + ["cat"]) == 1.0
    assert VizWizAccuracy().accuracy("dont", ["don't"] * 10) == 0.0
