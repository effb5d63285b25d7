"""CIDEr of the generated answer, as the value of a demonstration sequence."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.components.metrics.cider import Cider
from icltool.components.tasks import caption_tasks
from icltool.contracts.metric import Metric
from icltool.contracts.options import Options
from icltool.contracts.scorer import ScoringRequest, ScoringSession, Valuation


class CiderScorer:
    """The model answers the query after the demonstrations; the value is that answer's CIDEr against all references of
    the query. Document frequencies come from the references of the whole index set, read once per session."""

    options_model = Options
    #: The tasks that this scorer is meant for; on others a remark says so.
    tasks = caption_tasks()
    needs = frozenset({"model"})
    tie_tolerance = 0.0

    def __init__(self, metric: Metric | None = None) -> None:
        self._metric: Metric = metric if metric is not None else Cider()
        self._fitted_for: ScoringSession | None = None

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        """CIDEr unscaled (0 to 10) per request; no log-probabilities."""
        if self._fitted_for is not session:
            self._metric.fit(session.reference_corpus())
            self._fitted_for = session
        answers = session.answers(requests)
        return Valuation(self._metric.score(answers, [request.query.references for request in requests]))
