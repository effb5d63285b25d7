"""The best generated sequence of each query: the result of a perfect choice among the searched ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from icltool.components.retrievers.rows import excluded_rows
from icltool.contracts import IndexSet, IntArray, Options, QuerySet
from icltool.errors import ConfigError, DataError
from icltool.store.sequences import SequenceFile

_COMMAND = "run `icltool generate --queries validation` for this data set"


class OracleOptions(Options):
    """Which sequences to use, and how to rank them."""

    file: Path = Field(description="file of generated sequences")
    by: Literal["scores", "values"] = Field(
        "scores",
        description="rank sequences by the score of the search, or by the scorer's value of the finished sequence",
    )


class OracleRetriever:
    """The best sequence in a file of sequences that were searched for the evaluated queries themselves.

    The search knew the queries' labels, so this is an upper bound for analysis and not a fair method. A sequence that
    leaks, or that names an example outside the index set, is skipped in favour of the next best. The answer is in prompt
    order.
    """

    options_model = OracleOptions
    #: The split whose sequences it reads: the evaluated one.
    sequences = "validation"
    needs: frozenset[str] = frozenset()
    ranked = False
    nested = False

    def __init__(self, options: OracleOptions) -> None:
        self.file, self.by = options.file, options.by
        self._results: dict[int, Any] | None = None
        self._shots = 0

    @property
    def lengths(self) -> tuple[int, ...]:
        """The available numbers of demonstrations: sequences are not cut, since their scores are of the whole sequence."""
        self._read()
        return (self._shots,)

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. Nothing is drawn: `seed` has no effect.

        Raises StoreError if the file cannot be read, ConfigError if its sequences have another length, DataError if it
        lacks a usable sequence for a query.
        """
        for position in range(len(queries)):
            excluded_rows(index, queries, position, shots, "query")
        results = self._read()
        if shots != self._shots:
            raise ConfigError(
                f"oracle: the sequences in {self.file} have {self._shots} demonstrations, but --shots asks for {shots}",
                f"use --shots {self._shots}, or generate sequences of {shots}",
            )
        order = np.argsort(index.ids, kind="stable")
        ids = index.ids[order]
        chosen = np.empty((len(queries), shots), dtype=np.int64)
        missing, useless = [], []
        for position, query_id in enumerate(queries.ids.tolist()):
            if query_id not in results:
                missing.append(query_id)
                continue
            rows = self._best(results[query_id], ids, order, index.leaking_rows(queries, position))
            if rows is None:
                useless.append(query_id)
            else:
                chosen[position] = rows
        self._complain(len(queries), missing, useless)
        return chosen

    def _read(self) -> dict[int, Any]:
        """The results by query id; the file is read once."""
        if self._results is None:
            with SequenceFile.open(self.file) as file:
                self._results = {result.query_id: result for result in file.results()}
                self._shots = file.shots
        return self._results

    def _best(self, result: Any, ids: IntArray, order: IntArray, leaking: IntArray) -> IntArray | None:
        """Rows of the best sequence that is within the index set and does not leak; None if there is none."""
        ranks = np.argsort(-getattr(result, self.by), kind="stable")
        for icd_ids in result.icd_ids[ranks]:
            place = np.minimum(np.searchsorted(ids, icd_ids), len(ids) - 1)
            rows: IntArray = order[place].astype(np.int64)
            known = (ids[place] == icd_ids).all()
            if known and len(np.unique(rows)) == len(rows) and not np.isin(rows, leaking).any():
                return rows
        return None

    def _complain(self, total: int, missing: list[int], useless: list[int]) -> None:
        if missing:
            raise DataError(
                f"oracle: {self.file} holds no sequence for {len(missing)} of {total} queries (such as query {missing[0]})",
                f"run `icltool generate --queries validation --anchors {total}` for this data set: it draws the same queries",
            )
        if useless:
            raise DataError(
                f"oracle: all sequences of {len(useless)} of {total} queries leak the answer or name examples outside the "
                f"index set (such as query {useless[0]})",
                f"use the whole index set (--index-size -1), or {_COMMAND}",
            )
