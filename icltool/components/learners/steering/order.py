"""Which examples each batch has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from icltool.contracts import IntArray, keyed_generator


class EpochBatches:
    """Batches of positions 0 … n - 1, in another order in every epoch.

    Of `world` processes each has every `world`th position of each batch of one process with `world` times the size. The last
    batch may be smaller; a process that it has no position for reads another's, which must not count (`own`).

    With `keeps` each process has examples of its own in all epochs, so that what it keeps of them serves it again: its
    batches are as large, but of other examples than one process would put together.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, world: int = 1, rank: int = 0, keeps: bool = False
    ) -> None:
        self.count, self.batch_size, self.seed, self.world, self.rank = count, batch_size, seed, world, rank
        self._dealt = keyed_generator(seed, "steering.deal").permutation(count)
        self._keeps = keeps and world > 1
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // (self.batch_size * self.world))

    def own(self, batch: int) -> int:
        """How many positions of this batch (from 0) of the epoch are this process's."""
        whole = self.batch_size * self.world
        return len(range(self.rank, min(self.count - batch * whole, whole), self.world))

    def __iter__(self) -> Iterator[list[int]]:
        whole, order = self.batch_size * self.world, self._order()
        for low in range(0, self.count, whole):
            batch = order[low : low + whole].tolist()
            yield batch[self.rank :: self.world] or order[self.rank : self.rank + 1].tolist() or batch[:1]

    def _order(self) -> IntArray:
        """The positions of all processes."""
        if not self._keeps:
            return self._shuffled(self._dealt, 0)
        order = np.empty_like(self._dealt)
        for rank in range(self.world):
            order[rank :: self.world] = self._shuffled(self._dealt[rank :: self.world], rank)
        return order

    def _shuffled(self, positions: IntArray, rank: int) -> IntArray:
        drawn = keyed_generator(self.seed, f"steering.order.{rank}", self.epoch).permutation(len(positions))
        shuffled: IntArray = positions[drawn]
        return shuffled
