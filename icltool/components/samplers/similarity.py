"""What the samplers by similarity share."""

from __future__ import annotations

from icltool.components.retrievers.approximate import EXACT, IndexOptions
from icltool.components.retrievers.nearest import nearest_rows
from icltool.components.retrievers.rows import embeddings, excluded_rows
from icltool.contracts import IndexSet, IntArray, QuerySet


def nearest_pools(index: IndexSet, anchors: QuerySet, kind: str, size: int, options: IndexOptions = EXACT) -> IntArray:
    """The `size` rows nearest to each anchor by cosine of the `kind` embeddings that do not leak, most similar first.

    int64 [A, size]; equal similarities by row. `options` say how the rows are searched. DataError when an anchor has fewer
    rows left.
    """
    leaking = [excluded_rows(index, anchors, position, size, "anchor") for position in range(len(anchors))]
    return nearest_rows(embeddings(index, kind), embeddings(anchors, kind), size, leaking.__getitem__, options)
