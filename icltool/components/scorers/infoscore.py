"""InfoScore: how probable the demonstrations make the query's label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from icltool.contracts import Options, ScoringRequest, ScoringSession, Valuation


class InfoScoreOptions(Options):
    """What counts as probable."""

    norm: Literal["mean", "sum"] = Field(
        "mean", description="combine the log-probabilities of the label's tokens by their mean or their sum"
    )


class InfoScore:
    """f(S, x) = P(y | S, x); the beam search takes its differences, the InfoScore of the Lever-LM paper (section 3.2).

    `norm` "mean": P = exp(mean log-probability of the target's tokens), as the published code computes it; "sum": the
    probability of the whole sequence, as the paper's formula has it.
    """

    options_model = InfoScoreOptions
    needs = frozenset({"model"})
    #: Ten times the rounding seen in fp32 when the same prompt is scored in another batch (1e-7).
    tie_tolerance = 1e-6

    def __init__(self, options: InfoScoreOptions) -> None:
        self.norm = options.norm

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        scores = session.target_scores(requests)
        log_probs = np.array([s.log_prob for s in scores], dtype=np.float64)
        exponents = log_probs if self.norm == "sum" else np.array([s.mean for s in scores], dtype=np.float64)
        return Valuation(np.exp(exponents), log_probs)
