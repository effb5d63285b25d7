"""The share of answers that equal a reference, once both are normalised."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from pydantic import Field

from icltool.components.metrics.vqa_accuracy import normalise
from icltool.contracts import Float64Array, Options

Norm = Literal["vqa", "strict", "llava", "lmms", "vlm-evaluation"]
_Form: TypeAlias = Callable[[str], str]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ExactMatchOptions(Options):
    """How answers and references are normalised."""

    norm: Norm = Field(
        "vqa",
        description="vqa: both as in the official VQA evaluation (case, punctuation, articles, number words, contractions); "
        "strict: neither; as in evaluations of GQA, llava: the answer in lower case, without full stops at its end; lmms: both "
        "in lower case, without ASCII punctuation; vlm-evaluation: so the answer alone",
    )


class ExactMatch:
    """1 for an answer that equals one of its references once both are normalised, else 0.

    The default norm is for questions with fewer answers than the four from which on VQA accuracy can reach 1.
    """

    name = "exact-match"
    scale = 100.0
    options_model = ExactMatchOptions

    def __init__(self, options: ExactMatchOptions | None = None) -> None:
        norm = ExactMatchOptions().norm if options is None else options.norm
        #: The form of an answer, and that of a reference, which are compared.
        self.of_answer, self.of_reference = _FORMS[norm]

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: it has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], each 0 or 1; 0 for an answer without references."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        pairs = zip(map(self.of_answer, predictions), references, strict=True)
        return np.array([answer in map(self.of_reference, texts) for answer, texts in pairs], dtype=np.float64)


def _without_punctuation(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION)


#: (form of the answer, form of a reference) by norm.
_FORMS: Mapping[str, tuple[_Form, _Form]] = {
    "vqa": (normalise, normalise),
    "strict": (str, str),
    "llava": (lambda text: text.rstrip(".").lower(), str),
    "lmms": (_without_punctuation, _without_punctuation),
    "vlm-evaluation": (_without_punctuation, str),
}
