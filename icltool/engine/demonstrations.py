"""Checking what a retrieval method or sampler answered, before anything is computed with it."""

from __future__ import annotations

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.errors import PluginError


def checked_rows(name: str, rows: IntArray, index: IndexSet, queries: QuerySet, columns: int) -> IntArray:
    """`rows` int64 [Q, columns], if they keep the contract: in range, distinct per query, and no leak.

    Raises PluginError naming the component `name` otherwise; so nothing that a plugin does can leak a query's answer.
    """
    found = np.asarray(rows)
    if found.shape != (len(queries), columns):
        raise PluginError(f"{name!r} gave rows of shape {found.shape}, expected {(len(queries), columns)}")
    if columns == 0:
        return found.astype(np.int64)
    if found.min() < 0 or found.max() >= len(index):
        raise PluginError(f"{name!r} gave row {int(found.min())} … {int(found.max())} of an index set of {len(index)}")
    for q, row in enumerate(found):
        chosen = {int(r) for r in row}
        if len(chosen) != columns:
            raise PluginError(f"{name!r} chose an example twice for query {int(queries.ids[q])}")
        leaks = chosen.intersection(index.leaking_rows(queries, q).tolist())
        if leaks:
            raise PluginError(
                f"{name!r} chose example {int(index.ids[min(leaks)])} for query {int(queries.ids[q])}, "
                "which is the same image or a near-duplicate"
            )
    return found.astype(np.int64)
