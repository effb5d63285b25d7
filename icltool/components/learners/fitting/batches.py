"""The distribution of examples over the processes and batches of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from icltool.contracts import IntArray


class DealtBatches:
    """Batches of positions 0 … `count` - 1 for the process `rank` of `world`.

    A batch over all processes equals a batch of `world` times the size in a single process; each process gets every
    `world`th position. The last batch may be smaller; a process without a position in it reads one of another process, which
    must not count (see `own`).
    """

    def __init__(self, count: int, batch_size: int, seed: int, world: int = 1, rank: int = 0) -> None:
        self.count, self.batch_size, self.seed, self.world, self.rank = count, batch_size, seed, world, rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // (self.batch_size * self.world))

    def own(self, batch: int) -> int:
        """The number of positions of this batch (from 0) of the epoch that belong to this process."""
        whole = self.batch_size * self.world
        return len(range(self.rank, min(self.count - batch * whole, whole), self.world))

    def dealt(self, order: IntArray, start: int = 0, spare: Sequence[int] = ()) -> Iterator[list[int]]:
        """The batches of an epoch with all positions in this order, from batch `start` on. If the process has no position in
        the last batch, it reads `spare`, or without `spare` the first position of that batch."""
        whole = self.batch_size * self.world
        for low in range(start * whole, self.count, whole):
            batch = order[low : low + whole].tolist()
            yield batch[self.rank :: self.world] or list(spare) or batch[:1]
