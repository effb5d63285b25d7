"""What an evaluation works with: the data set, its subsets, and the arrays that retrievers see."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.config.choices import choice_identity
from icltool.config.datasets import chosen_dataset
from icltool.config.tasks import task_of
from icltool.contracts import Example, IndexSet, IntArray, QuerySet, Retriever, Task, holds_images, shown
from icltool.contracts.arrays import NOT_MEANT
from icltool.contracts.json import Json
from icltool.contracts.randomness import QUERIES, TRAIN_QUERIES, drawn, drawn_ids
from icltool.engine.choices import check_choices
from icltool.errors import ConfigError, StoreError
from icltool.plugin.manager import component
from icltool.store.arrays import (
    StoredExamples,
    guard_kinds,
    index_set,
    open_embeddings,
    open_others,
    query_set,
    rows_of,
)
from icltool.store.artefact import digest
from icltool.store.subsets import Subset, read_subset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.records import Records

_VECTORS = frozenset({"image", "text"})


class Inputs:
    """The prepared data of one call, each part opened once.

    `index_rows` int64 [N] and `query_rows` int64 [Q] are the rows of the splits that take part, `splits` the names of these.
    `guard` are the kinds of leaks that are kept away. Raises StoreError where nothing is prepared, or for a file of ids that
    are not the index set's, ConfigError for an empty subset and for sizes that do not go together.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config
        self.workspace: Workspace = Workspace(config.workspace)
        self.dataset = chosen_dataset(self.workspace, config.dataset, config.task, config.index_dataset)
        self._check_pair()
        self.dataset.check_images()
        self.task: Task = config.prompted(config.answered(task_of(self.dataset)))
        self.index: Records = self.dataset.split("train")
        self.splits = ("train", config.queries)
        self.queries: Records = self.dataset.query_records(config.queries)
        config.check_images(self.dataset.name, max(self.queries.most_images, self.index.most_images))
        self.subset = None if config.index_subset is None else self._subset(config.index_subset)
        rows = np.arange(len(self.index)) if self.subset is None else self._rows_of(self.subset)
        if config.queries == "train":
            self.query_rows = self._held_out()
            rows = np.setdiff1d(rows, self.query_rows)
            if not len(rows):
                raise ConfigError(
                    f"{len(self.query_rows):,} train queries leave no demonstrations", "for example --query-size 100"
                )
        else:
            self.query_rows = subset(QUERIES, len(self.queries), config.test_size)
            if config.query_size is not None:
                raise ConfigError("--query-size is for --queries train", "--test-size takes some validation queries")
        if config.index_per_label is not None:
            rows = self._per_label(rows, config.index_per_label)
        self.index_rows = rows[subset("evaluate.index", len(rows), config.index_size)]
        self.guard = guard_kinds(config.leak_guard, self.task)
        self._arrays: dict[tuple[frozenset[str], str | None], tuple[IndexSet, QuerySet]] = {}
        self._embeddings: dict[tuple[str, str], EmbeddingFile] = {}

    def _check_pair(self) -> None:
        """ConfigError for what cannot be combined with the index set of another data set."""
        paired = self.dataset.part("train") is not self.dataset
        if paired and self.config.queries == "train":
            raise ConfigError(
                f"--queries train takes queries from the index set, which is that of {self.dataset.part('train').name}",
                f"--dataset {self.dataset.part('train').name} without --index-dataset",
            )
        if paired and self.config.ship_data:
            raise ConfigError("--ship-data sends one data set, and --index-dataset names a second one", "leave it out")

    @property
    def same_split(self) -> bool:
        """Whether queries are of the split that demonstrations are of; none of the queries is among these then."""
        return self.config.queries == "train"

    def identity(self) -> dict[str, Json]:
        """What decides the results beside method, shots and seed, as far as options and the subset say it."""
        identity = {**self.config.identity(), **self.dataset.identity(), **choice_identity(self.task)}
        if self.subset is not None:
            identity["index_subset"] = digest({"ids": self.subset.ids.tolist()})
        if self.config.index_per_label is not None:
            identity["index_per_label"] = self.config.index_per_label
        if self.same_split:
            identity.update(queries=self.config.queries, query_size=len(self.query_rows))
        return identity

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
            arrays = (
                index_set(self.index, needs, None, self.index_rows, guard=self.guard),
                query_set(self.queries, needs, None, self.query_rows, self.same_split, guard=self.guard),
            )
        else:
            own = [None if encoder is None else self.embeddings(split, encoder) for split in self.splits]
            others = [open_others(self.workspace, self.dataset, split, needs) for split in self.splits]
            plain, plain_queries = self.arrays(frozenset(), None)
            index = index_set(self.index, needs, own[0], self.index_rows, others=others[0])
            queries = query_set(self.queries, needs, own[1], self.query_rows, self.same_split, others=others[1])
            arrays = (
                replace(index, questions=plain.questions, contents=plain.contents),
                replace(queries, questions=plain_queries.questions, contents=plain_queries.contents),
            )
        self._arrays[needs, encoder] = arrays
        return arrays

    def text_demonstrations(self, query_rows: IntArray) -> list[tuple[Example, ...]]:
        """The demonstrations of --zero-shot-text of the queries in these rows: drawn by query, without their images."""
        count = self.config.zero_shot_text
        if not count:
            return [()] * len(query_rows)
        index, queries = self.arrays(frozenset(), None)
        positions = np.searchsorted(self.query_rows, query_rows)
        retriever: Retriever = component("retrievers", "random")
        chosen = self.index_rows[retriever.retrieve(index, queries.take(positions), count, 0)]
        return [
            tuple(example.without_images() for example in shown(self.index.rows(rows), query))
            for query, rows in zip(self.queries.rows(query_rows), chosen, strict=True)
        ]

    @cached_property
    def index_labels(self) -> tuple[str, ...]:
        """The labels of the index rows."""
        return index_set(self.index, {"labels"}, None, self.index_rows).labels

    @cached_property
    def chance(self) -> float | None:
        """The accuracy of guessing, from 0 to 1: the mean over the queries of 1 / number of different choices; None for a task
        without choices. Raises what `check_choices` raises for a query whose choices cannot be ranked."""
        if not self.task.has_choices or not len(self.query_rows):
            return None
        total = 0.0
        for query in self.queries.rows(self.query_rows):
            check_choices(self.task, query)
            total += 1 / len(query.choices if holds_images(query) else set(query.choices))
        return total / len(self.query_rows)

    @property
    def examples(self) -> StoredExamples:
        """The examples behind the arrays."""
        return StoredExamples(self.index, self.index_rows, self.queries, self.query_rows)

    def _per_label(self, rows: IntArray, count: int) -> IntArray:
        """At most `count` of the rows of each label, ascending; fewer of them are among more."""
        drawn: dict[str, list[int]] = {}
        order = drawn_ids("evaluate.index_per_label", self.index.ids[rows])
        for row, example in zip(rows[order].tolist(), self.index.rows(rows[order]), strict=True):
            drawn.setdefault(example.label, []).append(row)
        return np.sort(np.array([row for of_label in drawn.values() for row in of_label[:count]], dtype=np.int64))

    def _held_out(self) -> IntArray:
        """Rows of the train queries, ascending. ConfigError where it is not said how many, or something else is."""
        size, total = self.config.query_size, len(self.index)
        if size is None:
            raise ConfigError(
                "--queries train needs --query-size, the number of examples taken from the index set",
                "for example --query-size 500",
            )
        if self.config.test_size >= 0:
            raise ConfigError("--test-size takes validation queries", "--query-size is for --queries train")
        return np.sort(drawn_ids(TRAIN_QUERIES, self.index.ids)[: min(size, total)])

    def _subset(self, file: Path) -> Subset:
        """The subset in a file. StoreError where it is of another data set, ConfigError where it looked at the queries."""
        subset, dataset = read_subset(file), self.dataset
        if subset.queries == "validation":
            raise ConfigError(
                f"{file} was learned from validation queries, so its results on them cannot be reported",
                "learn it from train queries",
            )
        if subset.fingerprint not in (None, dataset.fingerprint, dataset.part("train").fingerprint):
            raise StoreError(
                f"{file} was made for another data set, or another version of it, than {dataset.name} ({dataset.task})",
                "check --dataset and --task, or create it again",
            )
        return subset

    def _rows_of(self, chosen: Subset) -> IntArray:
        """Rows of the index records, ascending."""
        file = self.config.index_subset
        assert file is not None
        return np.sort(rows_of(chosen.ids, self.index.ids, file, "check --dataset and --task"))

    def kept_away(self) -> dict[str, float]:
        """How many rows that are meant for a query the leak guard keeps from it, mean over queries: by kind, and "any"."""
        index, queries = self.arrays(frozenset(), None)
        totals: dict[str, int] = {}
        for position in range(len(queries)):
            kinds = index.leaks_by_kind(queries, position)
            others = [kinds.pop(kind) for kind in NOT_MEANT & kinds.keys()]
            leaking = {
                kind: np.setdiff1d(rows, np.concatenate(others)) if others else rows for kind, rows in kinds.items()
            }
            for kind, rows in leaking.items():
                totals[kind] = totals.get(kind, 0) + len(rows)
            totals["any"] = totals.get("any", 0) + len(np.unique(np.concatenate([*leaking.values()])))
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
