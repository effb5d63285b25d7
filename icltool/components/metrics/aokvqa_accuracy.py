"""The accuracy of direct answers as A-OKVQA's evaluation computes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from icltool.contracts.arrays import Float64Array

#: Annotators who must have given an answer for it to be wholly right.
_ENOUGH = 3


class AokvqaAccuracy:
    """min(1, n / 3) for an answer that n annotators gave (Schwenk et al. 2022, A-OKVQA, section 5). Texts are compared as they
    are, and no annotator is left out."""

    name = "aokvqa-accuracy"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("vqa",)
    #: See Metric.
    least_references = 3
    instead = "exact-match"

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the accuracy has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n] in [0, 1]; 0 for an answer without references."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        pairs = zip(predictions, references, strict=True)
        return np.array([min(1.0, list(texts).count(answer) / _ENOUGH) for answer, texts in pairs], dtype=np.float64)
