"""A baseline that needs no LVLM: how similar the demonstrations' images are to the query's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icltool.contracts import FloatArray, ScoringRequest, ScoringSession, Valuation


class CosineScorer:
    """f(S, x): mean cosine similarity between the query's image and the demonstrations' images; 0 without demonstrations."""

    needs = frozenset({"image"})
    tie_tolerance = 0.0

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        examples = {e.id: e for r in requests for e in (r.query, *r.demonstrations)}
        vectors = _unit(session.features("image", list(examples.values())))
        row = {example_id: i for i, example_id in enumerate(examples)}
        values = np.zeros(len(requests))
        for i, request in enumerate(requests):
            if request.demonstrations:
                chosen = vectors[[row[e.id] for e in request.demonstrations]].astype(np.float64)
                values[i] = np.mean(chosen @ vectors[row[request.query.id]].astype(np.float64))
        return Valuation(values)


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = vectors / np.maximum(norms, 1e-12)
    return unit
