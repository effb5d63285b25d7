"""The examples of each batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from icltool.components.learners.fitting.batches import DealtBatches
from icltool.contracts import IntArray, keyed_generator


class EpochBatches(DealtBatches):
    """Batches in a different order in every epoch.

    With `fixed_shares` each process has the same examples in all epochs, so that it can reuse what it has cached of them.
    Batches have the same size, but other examples than in a single process.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, world: int = 1, rank: int = 0, fixed_shares: bool = False
    ) -> None:
        super().__init__(count, batch_size, seed, world, rank)
        self._dealt = keyed_generator(seed, "steering.deal").permutation(count)
        self._fixed_shares = fixed_shares and world > 1

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()  # on the first batch: Lightning may set the epoch after `iter`
        yield from self.dealt(order, spare=order[self.rank : self.rank + 1].tolist())

    def _order(self) -> IntArray:
        """The positions of all processes."""
        if not self._fixed_shares:
            return self._shuffled(self._dealt, 0)
        order = np.empty_like(self._dealt)
        for rank in range(self.world):
            order[rank :: self.world] = self._shuffled(self._dealt[rank :: self.world], rank)
        return order

    def _shuffled(self, positions: IntArray, rank: int) -> IntArray:
        drawn = keyed_generator(self.seed, f"steering.order.{rank}", self.epoch).permutation(len(positions))
        shuffled: IntArray = positions[drawn]
        return shuffled
