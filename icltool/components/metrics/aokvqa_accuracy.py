"""The accuracy of direct answers as A-OKVQA's evaluation computes it."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.components.metrics.vqa_accuracy import VQAAccuracy

#: Annotators who must have given an answer for it to be wholly right.
_ENOUGH = 3


class AokvqaAccuracy(VQAAccuracy):
    """min(1, n / 3) for an answer that n annotators gave (Schwenk et al. 2022, A-OKVQA, section 5). Texts are compared as they
    are, and no annotator is left out."""

    name = "aokvqa-accuracy"
    #: See Metric.
    least_references = _ENOUGH

    def accuracy(self, answer: str, annotators: Sequence[str]) -> float:
        return min(1.0, list(annotators).count(answer) / _ENOUGH)
