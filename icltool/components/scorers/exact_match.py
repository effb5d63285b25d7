"""Whether the generated answer equals a reference, as the value of a demonstration sequence."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.components.metrics.exact_match import ExactMatch
from icltool.contracts.scorer import ScoringRequest, ScoringSession, Valuation


class ExactMatchScorer:
    """The model answers the query after the demonstrations; the value is 1 if that answer equals one of the query's
    references after the normalisation of the VQA evaluation, else 0."""

    needs = frozenset({"model"})
    tie_tolerance = 0.0

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        """0 or 1 per request; no log-probabilities."""
        answers = session.answers(requests)
        return Valuation(ExactMatch().score(answers, [request.query.references for request in requests]))
