"""A scorer that needs no model: the value of demonstrations is the share of the label's words in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from icltool import Options, ScoringRequest, ScoringSession, Valuation


class WordOverlapOptions(Options):
    """What counts as one word."""

    case_sensitive: bool = Field(False, description="distinguish Red from red")


class WordOverlapScorer:
    """f(S, x): the share of distinct words of the query's label that occur in a demonstration's label, from 0 to 1."""

    options_model = WordOverlapOptions
    needs: frozenset[str] = frozenset()
    tie_tolerance = 0.0  # counted, not computed in floating point: no rounding depends on the batch

    def __init__(self, options: WordOverlapOptions) -> None:
        self.options = options

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        """The value of each request; 0 for an empty sequence or an empty label."""
        return Valuation(np.array([self._share(request) for request in requests], dtype=np.float64))

    def _share(self, request: ScoringRequest) -> float:
        label_words = self._words(request.query.label)
        demonstrated = {word for example in request.demonstrations for word in self._words(example.label)}
        return len(label_words & demonstrated) / len(label_words) if label_words else 0.0

    def _words(self, text: str) -> set[str]:
        return set((text if self.options.case_sensitive else text.lower()).split())
