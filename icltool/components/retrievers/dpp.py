"""Determinantal point process: the set of demonstrations that is jointly relevant and diverse."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from icltool.components.retrievers.options import PoolOptions
from icltool.components.retrievers.pool import Pool, PoolRetriever

#: A squared distance from the span of the chosen vectors (1 for a single vector) that counts as 0.
_NOTHING = 1e-9


class DPPOptions(PoolOptions):
    """Options of the kernel."""

    trade_off: float = Field(
        0.1, gt=0, le=1e6, description="trade-off between relevance (small values) and diversity (large values)"
    )


class DPPRetriever(PoolRetriever):
    """Greedy maximum a posteriori inference of a determinantal point process among the `pool` nearest rows.

    The kernel is L[i, j] = exp(r[i] / (2 t)) S[i, j] exp(r[j] / (2 t)) with the relevance r[i] = cos(query, i), the
    similarity S[i, j] = (1 + cos(i, j)) / 2 and t = `trade_off`, as in CEIL (Ye et al., Compositional exemplars for
    in-context learning, 2023), where a trained encoder gives the vectors; here they are the stored embeddings. Each step
    takes the row that raises log det L of the chosen rows most, ties to the lowest row; one Cholesky row per step makes it
    exact (Chen, Zhang, Zhou: Fast greedy MAP inference for determinantal point process, 2018, algorithm 1). Rows that add
    nothing to the determinant, such as a second one with an equal vector, come last, by relevance.

    Rows are in the order of choice, the most relevant first: they count as ranked, and the first k of more are what a
    call for k gives.
    """

    name = "dpp"
    options_model = DPPOptions
    options: DPPOptions
    nested = True

    def choose(self, pool: Pool, shots: int, query_id: int, seed: int) -> list[int]:
        """Positions in the pool, in the order of choice. Nothing is drawn.

        The factors exp(r / 2t) only add r / t to the logarithm of a row's gain, so the Cholesky rows are those of S.
        """
        chosen: list[int] = []
        factor = np.zeros((shots, len(pool)))  # the rows of the Cholesky factor, one per chosen vector
        left = np.ones(len(pool))  # squared distances from the span of the chosen vectors
        free = np.ones(len(pool), dtype=bool)
        for step in range(shots):
            useful = free & (left > _NOTHING)
            if not useful.any():
                chosen += np.flatnonzero(free)[: shots - step].tolist()
                break
            gains = np.full(len(pool), -np.inf)
            gains[useful] = pool.relevance[useful] / self.options.trade_off + np.log(left[useful])
            best = pool.best(gains)
            chosen.append(best)
            free[best] = False
            similarity = (1.0 + pool.similarities(best)) / 2.0
            known = (factor[:step] * factor[:step, best, None]).sum(axis=0)
            factor[step] = (similarity - known) / np.sqrt(left[best])
            left = left - factor[step] ** 2
        return chosen
