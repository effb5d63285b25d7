"""VQA accuracy of the generated answer, as the value of a demonstration sequence."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.components.metrics.vqa_accuracy import VQAAccuracy
from icltool.contracts.metric import Metric
from icltool.contracts.options import Options
from icltool.contracts.scorer import ScoringRequest, ScoringSession, Valuation


class VQAAccuracyScorer:
    """The model answers the query after the demonstrations; the value is that answer's accuracy against the annotators
    of the query."""

    options_model = Options
    #: The tasks that this scorer is meant for; on others a remark says so.
    tasks = ("vqa",)
    #: With fewer the accuracy cannot reach 1 (see the metric).
    least_references = VQAAccuracy.least_references
    needs = frozenset({"model"})
    tie_tolerance = 0.0

    def __init__(self, metric: Metric | None = None) -> None:
        self._metric: Metric = metric if metric is not None else VQAAccuracy()

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        """Accuracy in [0, 1] per request; no log-probabilities."""
        answers = session.answers(requests)
        return Valuation(self._metric.score(answers, [request.query.references for request in requests]))
