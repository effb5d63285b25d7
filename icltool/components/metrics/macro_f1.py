"""Macro-averaged F1 of a classification."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from icltool.components.metrics.accuracy import exact_matches, plain
from icltool.contracts.arrays import Float64Array
from icltool.contracts.metric import Judgement


class MacroF1:
    """The mean over labels of F1 = 2 TP / (2 TP + FP + FN), each label counting alike however often it occurs.

    The labels are those that occur as first references (an answer's true label; any further references are not looked
    at). An answer that is none of them is a miss of its true label and a false alarm of no label.
    """

    name = "macro-f1"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("classification",)

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: F1 has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]: whether each answer is right. Their mean is the accuracy; the metric is `figures`."""
        return exact_matches(predictions, references)

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """float64 [R]: macro-F1 under each weighting, over the labels that have weight in it (as references).

        Answers without references count for nothing but false alarms. NaN where no reference has weight.
        """
        truth = [plain(j.references[0]) if j.references else None for j in judgements]
        answers = [plain(j.answer) for j in judgements]
        labels = sorted({label for label in truth if label is not None})
        occurs = np.array([[t == label for label in labels] for t in truth], dtype=np.float64)
        answered = np.array([[a == label for label in labels] for a in answers], dtype=np.float64)
        shape = (len(judgements), len(labels))
        occurs, answered = occurs.reshape(shape), answered.reshape(shape)
        true_positives = weights @ (occurs * answered)
        positives, alarms = weights @ occurs, weights @ answered
        counted = positives > 0
        totals = np.where(counted, positives + alarms, 1.0)  # 2 TP + FP + FN
        scores = np.where(counted, 2 * true_positives / totals, 0.0).sum(axis=1)
        classes = counted.sum(axis=1)
        result: Float64Array = np.where(classes > 0, scores / np.maximum(classes, 1), np.nan)
        return result
