"""Answers that equal a reference in the common form of the VQA evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from icltool.components.metrics.exact_match import ExactMatch
from icltool.components.metrics.vqa_accuracy import VQAAccuracy
from icltool.config.metrics import named_metric
from icltool.contracts import too_few_references
from icltool.errors import ConfigError, PluginError
from icltool.plugin.manager import component


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("red", ("red",), 1.0),
        ("The Red.", ("red",), 1.0),
        ("two", ("2", "3"), 1.0),
        ("dont", ("don't",), 1.0),
        ("reddish", ("red",), 0.0),
        ("red", (), 0.0),
        ("", ("red",), 0.0),
    ],
)
def test_values(answer: str, references: tuple[str, ...], score: float) -> None:
    assert ExactMatch().score([answer], [references]).tolist() == [score]


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 predictions, 2 lists"):
        ExactMatch().score(["a"], [("a",), ("b",)])


@given(st.sampled_from(["red", "blue", "two"]), st.integers(4, 12))
def test_it_is_vqa_accuracy_where_all_annotators_agree(word: str, count: int) -> None:
    """And with fewer than four that accuracy cannot be 1."""
    accuracy = VQAAccuracy().accuracy
    assert accuracy(word, [word] * count) == ExactMatch().score([word], [(word,)])[0] == 1.0
    assert all(accuracy(word, [word] * few) < 1 for few in range(VQAAccuracy.least_references))


def test_what_is_too_few_is_said() -> None:
    assert too_few_references(VQAAccuracy(), lambda: [("a",) * 10, ("a",) * 4]) is None
    assert too_few_references(VQAAccuracy(), tuple) is None
    assert too_few_references(ExactMatch(), lambda: pytest.fail("it needs none")) is None
    fault = too_few_references(VQAAccuracy(), lambda: [("a",) * 10, ("a", "b")])
    assert fault is not None
    assert "needs 4 reference answers" in fault.message
    assert "some questions have only 2" in fault.message


FIXTURE = Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json"


@pytest.mark.parametrize("norm", ["strict", "llava", "lmms", "vlm-evaluation"])
def test_each_norm_equals_its_published_evaluator(norm: str) -> None:
    cases = json.loads(FIXTURE.read_text())["gqa"]
    assert len(cases) == 170
    metric = component("metrics", "exact-match", norm=norm)
    scores = metric.score([case["prediction"] for case in cases], [[case["answer"]] for case in cases])
    assert scores.tolist() == [case[norm] for case in cases]
    assert 0 < scores.mean() < 1


def test_an_unknown_norm_is_one_line_with_the_norms() -> None:
    with pytest.raises(ConfigError, match="norm") as caught:
        named_metric("exact-match:norm=lms")
    assert "lmms" in f"{caught.value} {caught.value.hint}"


def test_a_metric_is_named_with_its_options() -> None:
    assert named_metric("exact-match:norm=strict").score(["A cat"], [["a cat"]]).tolist() == [0]
    assert named_metric("exact-match").score(["A cat"], [["a cat"]]).tolist() == [1]
    with pytest.raises(ConfigError, match="NAME:OPTION=VALUE"):
        named_metric("exact-match:lmms")
    with pytest.raises(PluginError, match="unknown metric 'exact-mach'"):
        named_metric("exact-mach:norm=lmms")
