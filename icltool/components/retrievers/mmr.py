"""Maximal marginal relevance: demonstrations that are similar to the query and different from each other."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from icltool.components.retrievers.options import PoolOptions
from icltool.components.retrievers.pool import Pool, PoolRetriever


class MMROptions(PoolOptions):
    """Options of the trade-off."""

    trade_off: float = Field(
        0.5, ge=0, le=1, description="lambda of the paper, from 0 (only diversity) to 1 (only similarity)"
    )


class MMRRetriever(PoolRetriever):
    """Greedy maximal marginal relevance (Carbonell and Goldstein, 1998) among the `pool` nearest rows.

    Each step takes the row with the highest `trade_off` cos(query, row) - (1 - `trade_off`) max cos(chosen, row), ties to
    the lowest row. The default of `trade_off` weighs both terms equally, which suits cosines of one kind of embedding; if
    `query` and `demonstration` differ, cosines with the query are much smaller than those between rows, and a value near 1
    keeps the balance. Rows are in the order of choice, so the first is the nearest to the query; they count as ranked, and
    the first k of a longer list are what a call for k gives.
    """

    name = "mmr"
    options_model = MMROptions
    options: MMROptions
    nested = True

    def choose(self, pool: Pool, shots: int, query_id: int, seed: int) -> list[int]:
        """Positions in the pool, in the order of choice. Nothing is drawn."""
        chosen: list[int] = []
        trade_off = self.options.trade_off
        closest = np.full(len(pool), -np.inf)
        for _ in range(shots):
            scores = trade_off * pool.relevance
            if chosen:
                closest = np.maximum(closest, pool.similarities(chosen[-1]))
                scores = scores - (1 - trade_off) * closest
            scores[chosen] = -np.inf
            chosen.append(pool.best(scores))
        return chosen
