"""The accuracy of VL-ICL Bench, case by case as the published evaluation judges it, and the fair one by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icltool.components.metrics.vlicl_accuracy import FairVlIclAccuracy, VlIclAccuracy, VlIclOptions

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "benchmarks_vlicl_rule.json").read_text("utf-8"))["cases"]
RULES: dict[str, Any] = {
    **{"operator_induction": "number", "operator_induction_interleaved": "number", "matching_mi": "yes-no"},
    **{"clevr": "text", "textocr": "text", "open_mi": "text"},
}


@pytest.mark.parametrize("task", RULES)
def test_the_published_rule_case_by_case(task: str) -> None:
    cases = [case for case in CASES if case["task"] == task]
    metric = VlIclAccuracy(VlIclOptions(rule=RULES[task]))
    scores = metric.score([c["prediction"] for c in cases], [(str(c["answer"]),) for c in cases])
    assert scores.tolist() == [c["right"] for c in cases]
    assert len(cases) == 60


@pytest.mark.parametrize(
    ("rule", "answer", "reference", "published", "fair"),
    [
        ("number", "-4", "-4", 0, 1),
        ("number", "3 - 7 = \N{MINUS SIGN}4.", "-4", 0, 1),
        ("number", "2 + 3 = 5", "5", 0, 1),
        ("number", "2 + 3 = 5. 4 + 4 = 8", "5", 0, 1),  # what runs on after the full stop
        ("number", "3 objects", "3", 1, 1),
        ("number", "none", "4", 0, 0),
        ("text", "No.5", "No.5", 0, 1),
        ("text", "Stop. It says", "stop", 1, 1),
        ("text", "stop\nNo", "stop", 1, 1),
        ("text", ".com", ".com", 1, 1),
        ("text", "exit", " exit", 0, 1),  # a blank at the edge of the file's answer
        ("yes-no", "The same.\nUser: What is the output?\nAssistant: no", "no", 1, 0),
        ("yes-no", "eyes", "yes", 1, 0),
        ("yes-no", "", "no", 1, 0),
        ("yes-no", "No, yes", "no", 0, 1),
        ("yes-no", "Yes.", "yes", 1, 1),
    ],
)
def test_where_the_two_differ(rule: Any, answer: str, reference: str, published: int, fair: int) -> None:
    options = VlIclOptions(rule=rule)
    for metric, expected in ((VlIclAccuracy(options), published), (FairVlIclAccuracy(options), fair)):
        assert metric.score([answer], [(reference,)]).tolist() == [expected]


def test_the_queries_that_cannot_be_right() -> None:
    references = [("-4",), ("4",), ("-1",)]
    published = VlIclAccuracy(VlIclOptions(rule="number")).limits(references)
    assert published == "2 of 3 queries cannot be right under the published rule"
    assert FairVlIclAccuracy(VlIclOptions(rule="number")).limits(references) == ""
    assert VlIclAccuracy(VlIclOptions(rule="text")).limits([("St. Ives",)]).startswith("1 of 1")
    assert VlIclAccuracy().score(["x"], [()]).tolist() == [0]
    with pytest.raises(ValueError, match="1 predictions, 2 lists"):
        VlIclAccuracy().score(["a"], [(), ()])
