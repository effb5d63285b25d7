"""Workers of `icltool generate`: each has a model and searches groups of anchors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.generate.options import GenerateConfig
from icltool.config.datasets import chosen_dataset
from icltool.config.tasks import task_of
from icltool.contracts import (
    Example,
    FloatArray,
    IntArray,
    QueryResult,
    Sampler,
    Scorer,
    Task,
)
from icltool.engine.beam import BeamSearch, SearchOptions
from icltool.engine.demonstrations import checked_rows
from icltool.engine.generation import generation_options
from icltool.engine.session import FeatureSource, Session
from icltool.engine.work import Work
from icltool.errors import ConfigError
from icltool.plugin.manager import component, load_registry
from icltool.store.arrays import (
    FeatureTable,
    embedded_by,
    guard_kinds,
    index_set,
    open_embeddings,
    open_others,
    query_set,
)
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.records import PreparedDataset, Records

POOL_CHUNK = 1024  # anchors whose pools are drawn together


@dataclass(frozen=True)
class AnchorGroup:
    """A unit of work: anchors that are searched together. `rows` int64 [A] are theirs among the queries, `pools` those of each
    anchor's candidates in the index set."""

    rows: IntArray
    pools: tuple[IntArray, ...]


@dataclass(frozen=True)
class SearchedGroup:
    """The sequences of a group's anchors, in their order, and the work that it took."""

    rows: IntArray
    results: tuple[QueryResult, ...]
    work: Work


@dataclass(frozen=True)
class SearchParts:
    """All that a search needs but the model."""

    dataset: PreparedDataset
    records: Records  # the index set
    queries: Records  # the split of the anchors
    sampler: Sampler
    scorer: Scorer
    embeddings: EmbeddingFile | None
    query_embeddings: EmbeddingFile | None
    encoder: str | None
    guard: frozenset[str]
    task: Task


class Searcher:
    """A worker with its model. `notes` are those of its session."""

    def __init__(self, config: GenerateConfig) -> None:
        self._parts = parts = open_parts(config)
        self._session = open_search_session(config, parts)
        self._search = BeamSearch(parts.scorer, self._session, search_options(config))
        self._announced: set[int] = set()

    @property
    def notes(self) -> Sequence[str]:
        return self._session.notes

    def expect(self, group: AnchorGroup) -> None:
        """Starts to read the group's images."""
        self._announced.add(int(group.rows[0]))
        pairs = self._examples(group)
        self._session.expect([query for query, _ in pairs] + [c for _, pool in pairs for c in pool])

    def __call__(self, group: AnchorGroup) -> SearchedGroup:
        """The sequences of each anchor. They do not depend on which groups were searched before."""
        if int(group.rows[0]) not in self._announced:
            self.expect(group)
        before = self._session.done
        results = self._search.search_many(self._examples(group))
        return SearchedGroup(group.rows, tuple(results), self._session.done - before)

    def close(self, finished: bool) -> None:
        self._session.close(finished)

    def _examples(self, group: AnchorGroup) -> list[tuple[Example, list[Example]]]:
        parts = self._parts
        return [
            (parts.queries[row], parts.records.rows(pool)) for row, pool in zip(group.rows, group.pools, strict=True)
        ]


def open_parts(config: GenerateConfig) -> SearchParts:
    """Opens data set, embeddings and components. Raises StoreError if data or embeddings are missing, ConfigError and
    PluginError for wrong components."""
    workspace = Workspace(config.workspace)
    dataset = chosen_dataset(workspace, config.dataset, config.task, config.index_dataset)
    if dataset.part("train") is not dataset and (config.queries == "train" or config.ship_data):
        raise ConfigError(
            "--index-dataset is for --queries validation, and not for --ship-data",
            f"sequences to train on are searched within {dataset.part('train').name}: --dataset {dataset.part('train').name}",
        )
    if dataset.split("train").followers:
        raise ConfigError(
            f"{dataset.name} ({dataset.task}): demonstrations come in sets, which a beam search cannot put together",
            "evaluate it with methods that need no search: --method random",
        )
    dataset.check_images()
    sampler: Sampler = component("samplers", config.sampler, **config.sampler_options)
    scorer_options = dict(config.scorer_options)
    if config.scorer == "infoscore":
        scorer_options.setdefault("norm", config.infoscore_norm)
    scorer: Scorer = component("scorers", config.scorer, **scorer_options)
    load_registry().get("models", config.model)
    embeddings, query_embeddings, encoder = None, None, None
    if needs := (sampler.needs | scorer.needs) & {"image", "text"}:
        encoder = embedded_by(workspace, dataset, config.encoder, needs)
        embeddings = open_embeddings(workspace, dataset, "train", encoder)
        query_embeddings = open_embeddings(workspace, dataset, config.queries, encoder)
    index, queries = dataset.split("train"), dataset.query_records(config.queries)
    answered = config.prompted(config.answered(task_of(dataset)))
    guard = guard_kinds(config.leak_guard, answered)
    return SearchParts(dataset, index, queries, sampler, scorer, embeddings, query_embeddings, encoder, guard, answered)


def search_options(config: GenerateConfig) -> SearchOptions:
    return SearchOptions(config.shots, config.beam_size, config.construct_order, config.beam_score)


def candidate_pools(config: GenerateConfig, parts: SearchParts, anchors: IntArray) -> Iterator[tuple[int, IntArray]]:
    """(anchor row, candidate rows) for each anchor; pools do not depend on how anchors are chunked."""
    needs, workspace = parts.sampler.needs, Workspace(config.workspace)
    others = [open_others(workspace, parts.dataset, split, needs) for split in ("train", config.queries)]
    index = index_set(parts.records, needs, parts.embeddings, guard=parts.guard, others=others[0])
    for low in range(0, len(anchors), POOL_CHUNK):
        rows = anchors[low : low + POOL_CHUNK]
        same = config.queries == "train"
        queries = query_set(
            parts.queries, needs, parts.query_embeddings, rows, same, guard=parts.guard, others=others[1]
        )
        drawn = parts.sampler.sample(index, queries, config.candidates, config.seed)
        pools = checked_rows(config.sampler, drawn, index, queries, config.candidates)
        yield from zip((int(r) for r in rows), pools, strict=True)


def anchor_groups(config: GenerateConfig, parts: SearchParts, groups: Sequence[IntArray]) -> Iterator[AnchorGroup]:
    """Groups of anchors with their candidate pools."""
    pools = candidate_pools(config, parts, np.concatenate(groups))
    for group in groups:
        yield AnchorGroup(group, tuple(pool for _, pool in islice(pools, len(group))))


def open_search_session(config: GenerateConfig, parts: SearchParts) -> Session:
    """The session that scores, with its model."""
    task = parts.task
    model = config.open_model(task) if "model" in parts.scorer.needs else None
    lookup: FeatureSource | None = None
    if parts.embeddings is not None and parts.query_embeddings is not None:
        lookup = index = FeatureTable(parts.records, parts.embeddings)
        if config.queries != "train":
            lookup = _both_splits(index, FeatureTable(parts.queries, parts.query_embeddings), parts.queries)
    generation = generation_options({}, task, model)
    store = not config.dry_run  # a dry run writes nothing
    return config.open_session(task, model, generation, lookup, parts.records.references, store)


def _both_splits(index: FeatureTable, queries: FeatureTable, records: Records) -> FeatureSource:
    """Features of the examples of two splits, which may have the same ids."""
    own = {int(i) for i in records.ids}

    def lookup(kind: str, examples: Sequence[Example]) -> FloatArray:
        is_query = [e.id in own and records[records.row_of(e.id)] == e for e in examples]
        return np.concatenate([(queries if q else index)(kind, [e]) for q, e in zip(is_query, examples, strict=True)])

    return lookup
