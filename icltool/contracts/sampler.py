"""Samplers give each anchor its candidate pool."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import IndexSet, IntArray, QuerySet


@runtime_checkable
class Sampler(Protocol):
    """Chooses, for each anchor, the examples that beam search may use as demonstrations.

    `needs` names the arrays that must be filled, as for a Retriever: "image", "text", "texts" ….
    """

    needs: frozenset[str]

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size], distinct in each row of the answer.

        Never a row of `index.leaking_rows(anchors, a)`. Draws are keyed by `anchors.ids[a]` (`keyed_generator`), so an
        anchor's pool depends neither on the other anchors nor on their order.

        Raises DataError when an anchor has fewer than `size` rows left, naming the anchor and the number.
        """
        ...
