"""Which examples each batch has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from icltool.contracts import keyed_generator


class EpochBatches:
    """Batches of positions 0 … n - 1, in another order in every epoch.

    Each process of a distributed training has examples of its own, the same in all epochs, so that what it keeps of them
    serves it again; and as many of them as the others: one of its own comes twice where it has fewer. The last batch may
    be smaller.
    """

    def __init__(self, count: int, batch_size: int, seed: int, world: int = 1, rank: int = 0) -> None:
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        dealt = keyed_generator(seed, "steering.deal").permutation(count)
        own = dealt[rank::world]
        if len(own) < -(-count // world):
            own = np.concatenate([own, own[:1] if len(own) else dealt[:1]])
        self.own = own
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.own) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.own[
            keyed_generator(self.seed, f"steering.order.{self.rank}", self.epoch).permutation(len(self.own))
        ]
        for low in range(0, len(order), self.batch_size):
            yield order[low : low + self.batch_size].tolist()
