"""What an evaluation works with: the data set, its subsets, and the arrays that retrieval methods see."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.config.tasks import task_of
from icltool.contracts import IndexSet, IntArray, QuerySet, Task
from icltool.contracts.randomness import QUERIES, drawn
from icltool.errors import ConfigError
from icltool.store.arrays import StoredExamples, guard_kinds, index_set, open_embeddings, open_others, query_set
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.records import PreparedDataset, Records

_VECTORS = frozenset({"image", "text"})
#: The index set and the queries.
_SPLITS = ("train", "validation")


class Inputs:
    """The prepared data of one call, each part opened once.

    `index_rows` int64 [N] and `query_rows` int64 [Q] are the rows of the splits that take part. `guard` are the kinds of
    leaks that are kept away. Raises StoreError where nothing is prepared, ConfigError for an empty subset.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config
        self.workspace: Workspace = Workspace(config.workspace)
        name, task = self.workspace.choose_dataset(config.dataset, config.task)
        self.dataset: PreparedDataset = open_dataset(self.workspace.dataset_folder(name, task))
        self.dataset.check_pictures()
        self.task: Task = task_of(self.dataset)
        self.index: Records = self.dataset.split("train")
        self.queries: Records = self.dataset.split("validation")
        self.index_rows = subset("evaluate.index", len(self.index), config.index_size)
        self.query_rows = subset(QUERIES, len(self.queries), config.test_size)
        self.guard = guard_kinds(config.leak_guard, self.task)
        self._arrays: dict[tuple[frozenset[str], str | None], tuple[IndexSet, QuerySet]] = {}
        self._embeddings: dict[tuple[str, str], EmbeddingFile] = {}

    def embeddings(self, split: str, encoder: str) -> EmbeddingFile:
        """The embeddings of a split, checked. StoreError as `open_embeddings`."""
        if (split, encoder) not in self._embeddings:
            self._embeddings[split, encoder] = open_embeddings(self.workspace, self.dataset, split, encoder)
        return self._embeddings[split, encoder]

    def arrays(self, needs: frozenset[str], encoder: str | None) -> tuple[IndexSet, QuerySet]:
        """(index set, queries) with the arrays that a method needs and what the leak guard compares; `encoder` is whose "image"
        and "text" are, None where these are not needed. Each combination is read once."""
        if (needs, encoder) in self._arrays:
            return self._arrays[needs, encoder]
        if not needs:
            found = (
                index_set(self.index, needs, None, self.index_rows, guard=self.guard),
                query_set(self.queries, needs, None, self.query_rows, guard=self.guard),
            )
        else:
            own = [None if encoder is None else self.embeddings(split, encoder) for split in _SPLITS]
            others = [open_others(self.workspace, self.dataset, split, needs) for split in _SPLITS]
            plain, asked = self.arrays(frozenset(), None)
            index = index_set(self.index, needs, own[0], self.index_rows, others=others[0])
            queries = query_set(self.queries, needs, own[1], self.query_rows, others=others[1])
            found = (
                replace(index, questions=plain.questions, contents=plain.contents),
                replace(queries, questions=asked.questions, contents=asked.contents),
            )
        self._arrays[needs, encoder] = found
        return found

    @property
    def examples(self) -> StoredExamples:
        """The examples behind the arrays."""
        return StoredExamples(self.index, self.index_rows, self.queries, self.query_rows)

    def kept_away(self) -> dict[str, float]:
        """How many rows of the index set the leak guard keeps from a query, mean over queries: by kind, and "any"."""
        index, queries = self.arrays(frozenset(), None)
        totals: dict[str, int] = {}
        for position in range(len(queries)):
            kinds = index.leaks_by_kind(queries, position)
            for kind, rows in kinds.items():
                totals[kind] = totals.get(kind, 0) + len(rows)
            totals["any"] = totals.get("any", 0) + len(index.leaking_rows(queries, position))
        return {kind: total / len(queries) for kind, total in totals.items()}


def needs_vectors(needs: frozenset[str]) -> bool:
    """Whether embeddings must be there, by whatever encoder the call means."""
    return bool(needs & _VECTORS)


def subset(purpose: str, total: int, size: int) -> IntArray:
    """Rows of a subset of `size` (-1: all), ascending; the draw does not depend on the methods' seeds."""
    if size < 0 or size >= total:
        return np.arange(total, dtype=np.int64)
    if size == 0:
        raise ConfigError("a size of 0 leaves nothing to evaluate", "-1 takes all")
    return np.sort(drawn(purpose, total)[:size]).astype(np.int64)
