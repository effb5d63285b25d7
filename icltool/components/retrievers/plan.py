"""A retriever that replays a plan: a file lists the demonstrations of every query."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from icltool.contracts import IndexSet, IntArray, Options, QuerySet
from icltool.errors import ConfigError, DataError
from icltool.store.plans import read_plan

#: The most ids that an error message lists.
_NAMED = 5


class PlanOptions(Options):
    """The plan to replay."""

    file: Path = Field(description="plan file")


class PlanRetriever:
    """The demonstrations that a plan file (`icltool.store.plans`) lists for each query, in its order.

    For fewer shots than a list is long, its *last* ids are used: those next to the query. `fingerprint` is that of the
    plan's data set (None if the file does not record it), `shots` the number of demonstrations that every query has,
    `label` the file's name without its suffix, and `remarks` are notes for the screen. Raises StoreError for a file that is
    not a plan.
    """

    options_model = PlanOptions
    needs: frozenset[str] = frozenset()
    ranked = False
    nested = False

    def __init__(self, options: PlanOptions) -> None:
        self.file = options.file
        self.plan = read_plan(self.file)
        self.label = self.file.stem
        self.shots = self.plan.shots
        self.fingerprint = self.plan.fingerprint
        self.remarks = self.plan.remarks

    def identity(self) -> dict[str, Any]:
        """What determines the result, independent of the file's path: a hash of its content."""
        return {"plan": self.plan.digest}

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots], in the plan's order; `seed` has no effect. The plan is never changed: the
        caller must refuse a row that leaks. Raises ConfigError for more shots than a query has in the plan; DataError for
        queries that the plan does not list or lists for another split, and for ids that the index set does not have.
        """
        self._check_split(queries)
        lists = self._lists(queries.ids.tolist(), shots)
        ids = np.array(lists, dtype=np.int64).reshape(len(lists), shots)
        return self._rows(index, ids)

    def _check_split(self, queries: QuerySet) -> None:
        splits = self.plan.splits
        if splits is None or not len(queries):
            return
        if (splits["queries"] == splits["demonstrations"]) != queries.same_split:
            raise DataError(
                f"plan {self.file} is for queries of the split {splits['queries']!r}, but these are of another split",
                "create a plan for these queries: `icltool export plan`",
            )

    def _lists(self, ids: list[int], shots: int) -> list[tuple[int, ...]]:
        """The last `shots` ids of each query's list."""
        icd_ids = self.plan.icd_ids
        missing = [query for query in ids if query not in icd_ids]
        if missing:
            raise DataError(
                f"plan {self.file} has no entry for {len(missing)} of {len(ids)} queries: {_some(missing)}",
                self._hint(),
            )
        sequences = [icd_ids[query] for query in ids]
        short = [(query, len(icds)) for query, icds in zip(ids, sequences, strict=True) if len(icds) < shots]
        if short:
            query, length = min(short, key=lambda pair: pair[1])
            where = "per query" if {len(icds) for icds in sequences} == {length} else f"for query {query}"
            raise ConfigError(
                f"plan {self.file} has {length} demonstrations {where}, but --shots asks for {shots}",
                f"ask for {length} shots, or for fewer: then the last ones of each list are used",
            )
        return [icds[len(icds) - shots :] for icds in sequences]

    def _rows(self, index: IndexSet, ids: IntArray) -> IntArray:
        """The rows of `index` with these ids, in their shape."""
        unknown = np.setdiff1d(ids, index.ids)
        if len(unknown):
            raise DataError(
                f"plan {self.file} lists {len(unknown)} demonstrations that the index set of {len(index)} examples does "
                f"not have: {_some(unknown.tolist())}",
                f"{self._hint()}, and evaluate with the whole index set (--index-size -1)",
            )
        order = np.argsort(index.ids, kind="stable")
        rows: IntArray = order[np.searchsorted(index.ids, ids, sorter=order)].astype(np.int64)
        return rows

    def _hint(self) -> str:
        name = f" ({self.plan.dataset}, {self.plan.task})" if self.plan.dataset else ""
        return f"check that this is the data set that the plan was made for{name}"


def _some(ids: Iterable[int]) -> str:
    """The first ids, with dots if there are more."""
    listed = list(ids)
    return ", ".join(map(str, listed[:_NAMED])) + (" …" if len(listed) > _NAMED else "")
