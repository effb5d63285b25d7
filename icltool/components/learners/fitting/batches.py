"""Which examples each process of a training has in each of its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from icltool.contracts import IntArray


class DealtBatches:
    """Batches of positions 0 … `count` - 1 for the process `rank` of `world`.

    They are those of one process with `world` times the size, and each process has every `world`th position of each. The last
    one may be smaller; a process that it has no position for reads another's, which must not count (`own`).
    """

    def __init__(self, count: int, batch_size: int, seed: int, world: int = 1, rank: int = 0) -> None:
        self.count, self.batch_size, self.seed, self.world, self.rank = count, batch_size, seed, world, rank
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

    def dealt(self, order: IntArray, start: int = 0, spare: Sequence[int] = ()) -> Iterator[list[int]]:
        """The batches of an epoch in which all positions come in this order, from batch `start` on. `spare` is read where the
        process has none of the last one's; without it that one's first."""
        whole = self.batch_size * self.world
        for low in range(start * whole, self.count, whole):
            batch = order[low : low + whole].tolist()
            yield batch[self.rank :: self.world] or list(spare) or batch[:1]
