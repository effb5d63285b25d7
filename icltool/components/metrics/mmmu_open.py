"""MMMU's judgement of free answers to open questions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from icltool.contracts.arrays import Float64Array

#: The words that a conclusion follows.
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_MARKS = (":", ",", ".", "!", "?", ";", ":", "'")
_GROUPED = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_PLAIN = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")


class MmmuOpen:
    """1 where a number or a phrase that an answer concludes with is one of the references, by the rule of MMMU's evaluation;
    else 0. Several references: any of them."""

    name = "mmmu-open"
    scale = 100.0

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: it has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], each 0 or 1; 0 for an answer without references."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        pairs = zip(predictions, references, strict=True)
        return np.array([_right(candidates(answer), texts) for answer, texts in pairs], dtype=np.float64)


def candidates(response: str) -> list[str | float]:
    """What the response may be meant to say: the tails of its parts behind words such as "answer", or the whole; and the
    numbers in them, rounded to two digits."""
    response = response.strip().strip(".").lower()
    parts = response.split("\n")
    tails = [tail for number, part in enumerate(parts) if (tail := _tail(part, number == len(parts) - 1)) is not None]
    texts = tails or [response]
    numbers = [number for text in texts for form in (_GROUPED, _SCIENTIFIC, _PLAIN) for number in form.findall(text)]
    return [value for text in [*texts, *numbers] for value in _values(text)]


def _tail(part: str, last: bool) -> str | None:
    """The shortest text behind an indicator; None if there is none, or it is a lone mark."""
    indicators = (*_INDICATORS, "=") if last else _INDICATORS
    tails = [part.split(indicator)[-1].strip() for indicator in indicators if indicator in part]
    shortest = min(tails, key=len, default="")
    return shortest if shortest and shortest not in _MARKS else None


def _values(text: str) -> list[str | float]:
    """The text as a number rounded to two digits, else in lower case; a single character with a blank before, and behind."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _right(said: Sequence[str | float], references: Sequence[str]) -> bool:
    answers = [value for text in references for value in _values(text)]
    texts = [value for value in said if isinstance(value, str)]
    return any(
        any(answer in text for text in texts) if isinstance(answer, str) else answer in said for answer in answers
    )
