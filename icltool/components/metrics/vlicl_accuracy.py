"""The accuracy of VL-ICL Bench, by its published rule and by one that every answer can satisfy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from pydantic import Field

from icltool.contracts import Float64Array, Options

Rule = Literal["text", "number", "yes-no"]
_Right: TypeAlias = Callable[[str, str], bool]

_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"-?\d+")
_YES_OR_NO = re.compile(r"\b(?:yes|no)\b")


class VlIclOptions(Options):
    """How an answer is compared."""

    rule: Rule = Field(
        "text",
        description="text: the answer is the reference; number: a number in it is; yes-no: it says yes, or does not",
    )


class VlIclAccuracy:
    """1 for an answer that is right by the rule of the published evaluation (Zong et al. 2024, VL-ICL Bench), else 0.

    The answer is cut at its first line break, or else at its first full stop. Then "text" compares it with the reference but
    for case; "number" compares its first run of digits, so that a negative number is never right; "yes-no" looks for "yes"
    anywhere in it ("eyes" is a yes, an empty answer a no). `limits` tells how many references no answer can match.
    """

    name = "vlicl-accuracy"
    scale = 100.0
    options_model = VlIclOptions

    def __init__(self, options: VlIclOptions | None = None) -> None:
        self.rule: Rule = (options or VlIclOptions()).rule
        self._right = self.rules()[self.rule]

    def rules(self) -> Mapping[str, _Right]:
        """Whether an answer matches a reference, by the name of the rule."""
        return {
            "text": lambda answer, reference: _published_cut(answer).lower() == reference.lower(),
            "number": lambda answer, reference: _first(_DIGITS, _published_cut(answer)) == reference,
            "yes-no": lambda answer, reference: (
                ("yes" in _published_cut(answer).lower()) == (reference.lower() == "yes")
            ),
        }

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the accuracy has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], each 0 or 1; 0 for an answer without references."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        pairs = zip(predictions, references, strict=True)
        right = [any(self._right(answer, reference) for reference in texts) for answer, texts in pairs]
        return np.array(right, dtype=np.float64)

    def limits(self, references: Iterable[Sequence[str]]) -> str:
        """See HasLimits: how many queries cannot be right, as no answer matches their reference."""
        listed = list(references)
        beyond = sum(not any(self._right(text, text) for text in texts) for texts in listed)
        return f"{beyond:,} of {len(listed):,} queries cannot be right under the published rule" if beyond else ""


class FairVlIclAccuracy(VlIclAccuracy):
    """1 for an answer that is right by rules that every reference satisfies, else 0.

    The answer is cut as for the published rule. "number" then takes the last number after "=", else the first one, with its
    sign; "text" cuts at a full stop only if the reference has none; "yes-no" takes the first word that is yes or no, and an
    answer without one is wrong.
    """

    name = "vlicl-accuracy-fair"

    def rules(self) -> Mapping[str, _Right]:
        return {
            "text": lambda answer, reference: _fair_cut(answer, reference).lower() == reference.strip().lower(),
            "number": lambda answer, reference: _number(answer) == reference,
            "yes-no": lambda answer, reference: _first(_YES_OR_NO, _published_cut(answer).lower()) == reference.lower(),
        }


def _published_cut(answer: str) -> str:
    answer = answer.strip()
    for mark in ("\n", "."):
        place = answer.find(mark)
        if place > 0:
            return answer[:place]
    return answer


def _fair_cut(answer: str, reference: str) -> str:
    answer = answer.strip().partition("\n")[0]
    return (answer if "." in reference else answer.partition(".")[0] or answer).strip()


def _number(answer: str) -> str:
    """The number that an answer states, "" for none."""
    left = _published_cut(answer).replace("\N{MINUS SIGN}", "-")
    results = _NUMBER.findall(left.rpartition("=")[2]) if "=" in left else []
    return results[-1] if results else _first(_NUMBER, left)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group() if found else ""
