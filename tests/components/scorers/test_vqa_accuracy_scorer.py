"""The VQA accuracy scorer: official accuracy of the answer against the query's annotators."""

from __future__ import annotations

import numpy as np

from icltool.components.scorers.vqa_accuracy import VQAAccuracyScorer
from icltool.contracts import Scorer, ScoringRequest
from tests.components.scorers.sessions import CopyingSession, example

QUERY = example(1, *["dog"] * 2, *["cat"] * 7, "two")
DOG, CAT, TWO, BUS = (example(10 + i, text) for i, text in enumerate(["The dog.", "cat", "2", "bus"]))


def test_value_is_the_official_accuracy() -> None:
    scorer = VQAAccuracyScorer()
    assert isinstance(scorer, Scorer)
    assert scorer.needs == {"model"}
    assert scorer.tie_tolerance == 0
    demonstrations = ((), (BUS, DOG), (DOG, CAT), (TWO,), (BUS,))
    session = CopyingSession("vqa", [])
    valuation = scorer.evaluate(session, [ScoringRequest(QUERY, s) for s in demonstrations])
    np.testing.assert_allclose(valuation.values, [0.0, 0.6, 1.0, 0.3, 0.0], atol=1e-12)
    assert valuation.values.dtype == np.float64
    assert valuation.log_probs is None
    assert session.read == 0
