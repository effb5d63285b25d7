"""Letters read from answers, as the published evaluators read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icltool.components.metrics.choice_letter import RULES, chosen_letter
from icltool.errors import ConfigError

FIXTURE = Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json"
COLOURS = ("red", "blue", "green", "grey")


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "strict"])
def test_each_rule_reads_what_its_published_evaluator_reads(rule: str) -> None:
    cases = json.loads(FIXTURE.read_text())["letters"]
    assert len(cases) == 190
    assert [chosen_letter(case["text"], case["choices"], rule) for case in cases] == [case[rule] for case in cases]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" (B)\n", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("B:", "B"),
        ("b", None),
        ("The answer is B", "B"),
        ("The answer is (B), because the sky is blue.", "B"),
        ("Answer: B.", "B"),
        ("answer:\nB", "B"),
        ("the answer is a blue one", None),
        ("The answer is Blue", None),
        ("The answer is A. The answer is B.", None),
        ("The answer is B. Yes, the answer is B.", "B"),
        ("The answer is Z.", None),
        ("Z", None),
        ("blue", "B"),
        (" BLUE. ", "B"),
        ("a blue picture", None),
        ("A dog", None),
        ("A, B", None),
        ("", None),
    ],
)
def test_strictly_read(text: str, letter: str | None) -> None:
    assert chosen_letter(text, COLOURS) == letter


def test_of_equal_choices_the_first() -> None:
    assert chosen_letter("red", ("blue", "red", "red")) == "B"


def test_an_unknown_rule() -> None:
    with pytest.raises(ConfigError, match="no rule 'mmm'") as caught:
        chosen_letter("A", COLOURS, "mmm")
    assert "lmms-mmmu" in str(caught.value.hint)
