"""Checking what a retriever or sampler answered, before anything is computed with it."""

from __future__ import annotations

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.errors import PluginError

_SHARES = {
    "image": "is the same image",
    "group": "is a near-duplicate of it",
    "question": "asks the same question",
    "text": "has the text of the query with its answer",
    "rule": "has no label for the rule of the query",
    "support": "is not in the support set of the query",
}


def checked_rows(name: str, rows: IntArray, index: IndexSet, queries: QuerySet, columns: int) -> IntArray:
    """`rows` int64 [Q, columns], if they keep the contract: in range, distinct per query, and no leak.

    Raises PluginError naming the component `name` otherwise; so nothing that a plugin does can leak a query's answer.
    """
    checked = np.asarray(rows)
    if checked.shape != (len(queries), columns):
        raise PluginError(f"{name!r} gave rows of shape {checked.shape}, expected {(len(queries), columns)}")
    if not checked.size:
        return checked.astype(np.int64)
    if checked.min() < 0 or checked.max() >= len(index):
        raise PluginError(
            f"{name!r} gave row {int(checked.min())} … {int(checked.max())} of an index set of {len(index)}"
        )
    for q, row in enumerate(checked):
        if len(np.unique(row)) != columns:
            raise PluginError(f"{name!r} chose an example twice for query {int(queries.ids[q])}")
        kinds = index.leaks_by_kind(queries, q)
        for kind, rows_of_kind in kinds.items():
            leaks = row[np.isin(row, rows_of_kind)]
            if len(leaks):
                raise PluginError(
                    f"{name!r} chose example {int(index.ids[leaks[0]])} for query {int(queries.ids[q])}, "
                    f"which {_SHARES[kind]}"
                )
    return checked.astype(np.int64)
