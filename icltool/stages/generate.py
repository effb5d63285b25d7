"""Searches the demonstration sequences that a selector learns from.

Reads: datasets/<name>/<task>/, embeddings/ where sampler or scorer ask for them
Writes: sequences/<name>-<task>-<model>-<sampler>-<scorer>-<digest>.h5
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.config.generate import GenerateConfig
from icltool.contracts import (
    Example,
    FloatArray,
    IntArray,
    Model,
    Progress,
    Sampler,
    Scorer,
    StageReport,
    keyed_generator,
    task_named,
)
from icltool.engine.beam import BeamSearch, SearchOptions, anchors_to_fill
from icltool.engine.demonstrations import checked_rows
from icltool.engine.generation import generation_options
from icltool.engine.session import FeatureSource, Session, open_session, prefix_bytes
from icltool.errors import ConfigError, StoreError
from icltool.plugin.manager import component, load_registry

if TYPE_CHECKING:
    from icltool.store.arrays import FeatureTable
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.records import PreparedDataset, Records
    from icltool.store.sequences import SequenceWriter

POOL_CHUNK = 1024  # anchors whose pools are drawn together
SAMPLED_ANCHORS = 8  # anchors whose prompts are timed for a cost plan


@dataclass(frozen=True)
class _Parts:
    """What one run works with."""

    dataset: PreparedDataset
    records: Records  # the index set
    queries: Records  # what anchors are drawn from
    sampler: Sampler
    scorer: Scorer
    embeddings: EmbeddingFile | None
    query_embeddings: EmbeddingFile | None
    encoder: str | None
    guard: frozenset[str]


def run(config: GenerateConfig, progress: Progress) -> StageReport:
    """Generates what is missing: finished anchors of an earlier run are kept, whatever ended it.

    Raises StoreError where a data set or embeddings are missing or the file belongs to other options, ConfigError and
    PluginError for wrong components, DataError when an anchor has too few candidates.
    """
    from icltool.store.locking import locked
    from icltool.store.sequences import SequenceFile, SequenceWriter
    from icltool.store.workspace import Workspace

    if config.shots > config.candidates:
        raise ConfigError(
            f"{config.shots} shots from pools of {config.candidates} candidates", "raise --candidates, or lower --shots"
        )
    workspace = Workspace(config.workspace)
    parts = _open_parts(config, workspace)
    rows = _draw_anchors(parts.queries, config)
    path, provenance = _artefact(config, workspace, parts, len(rows))
    remarks = [] if len(rows) == config.anchors else [f"there are only {len(rows)} examples: all are anchors"]
    made_for = getattr(parts.scorer, "tasks", ())
    if made_for and parts.dataset.task not in made_for:
        remarks.append(
            f"scorer {config.scorer} is made for {' and '.join(made_for)}: on {parts.dataset.task} it says little"
        )
    if config.dry_run:
        return _cost(config, parts, rows, path, remarks, progress)
    if path.is_file():
        with locked(path):  # refused before a model is loaded, not after
            pass
    session: Session | None = None
    with ExitStack() as opened:
        if config.overwrite or len(_missing(parts, rows, _finished(path))):
            # before there is a file: one without anchors would only be in the way
            session = opened.enter_context(_session(config, parts, progress))
        writer = opened.enter_context(
            SequenceWriter(
                path,
                provenance,
                config.shots,
                config.beam_size,
                config.candidates,
                len(rows),
                overwrite=config.overwrite,
            )
        )
        missing = _missing(parts, rows, writer.finished)
        if len(missing):
            session = session or opened.enter_context(_session(config, parts, progress))
            _search(config, parts, session, rows, writer, progress)
    remarks += ["up to date: every anchor was finished before"] if session is None else [*session.notes, *session.work]
    return _report(config, parts.dataset, SequenceFile.open(path), path, len(missing), remarks)


def _finished(path: Path) -> Collection[int]:
    """Ids of the anchors that the file of an earlier run holds."""
    from icltool.store.sequences import SequenceFile

    try:
        file = SequenceFile.open(path)
    except StoreError:  # not there; or damaged, which the writer will say
        return ()
    found = file.query_ids
    file.close()
    return found


def _missing(parts: _Parts, rows: IntArray, finished: Collection[int]) -> IntArray:
    return np.array([r for r in rows if int(parts.queries.ids[r]) not in finished], dtype=np.int64)


def _open_parts(config: GenerateConfig, workspace: Any) -> _Parts:
    from icltool.store.arrays import embedded_by, guard_kinds, open_embeddings
    from icltool.store.records import open_dataset

    name, task = workspace.choose_dataset(config.dataset, config.task)
    dataset = open_dataset(workspace.dataset_folder(name, task))
    sampler: Sampler = component("samplers", config.sampler, **config.sampler_options)
    scorer_options = dict(config.scorer_options)
    if config.scorer == "infoscore":
        scorer_options.setdefault("norm", config.infoscore_norm)
    scorer: Scorer = component("scorers", config.scorer, **scorer_options)
    load_registry().get("models", config.model)
    embeddings, query_embeddings, encoder = None, None, None
    if (sampler.needs | scorer.needs) & {"image", "text"}:
        encoder = embedded_by(workspace, dataset, config.encoder)
        embeddings = open_embeddings(workspace, dataset, "train", encoder)
        query_embeddings = open_embeddings(workspace, dataset, config.queries, encoder)
    index, queries = dataset.split("train"), dataset.split(config.queries)
    guard = guard_kinds(config.leak_guard, task)
    return _Parts(dataset, index, queries, sampler, scorer, embeddings, query_embeddings, encoder, guard)


def _draw_anchors(records: Records, config: GenerateConfig) -> IntArray:
    """Rows of the anchors, in drawn order; a smaller number of anchors gives the first of a larger one."""
    order = keyed_generator(config.seed, "generate.anchors").permutation(len(records))
    return order[: config.anchors].astype(np.int64)


def _artefact(config: GenerateConfig, workspace: Any, parts: _Parts, anchors: int) -> tuple[Path, Any]:
    """(path, provenance) of the sequences file; the path carries a digest of everything that decides its content."""
    from icltool.store.artefact import Provenance, digest
    from icltool.store.workspace import VALIDATION_MARK

    identity = {**config.identity(), "dataset": parts.dataset.name, "task": parts.dataset.task, "anchors": anchors}
    identity["encoder"], identity["leak_guard"] = parts.encoder, sorted(parts.guard)
    if config.queries == "train":  # files of before there was a choice are the same
        del identity["queries"]
    extra = {} if parts.embeddings is None else {"embeddings_fingerprint": parts.embeddings.fingerprint}
    uses_model = "model" in parts.scorer.needs
    if not uses_model:
        identity.update(dict.fromkeys(("model", "model_path", "dtype", "quantization", "prompt_style")))
        identity.pop("prompt_template", None)
    registry = load_registry()
    chosen = [
        ("samplers", config.sampler),
        ("scorers", config.scorer),
        *([("models", config.model)] if uses_model else []),
    ]
    plugins = {f"{kind}/{name}": f"{(f := registry.get(kind, name)).distribution} {f.version}" for kind, name in chosen}
    provenance = Provenance(identity, parts.dataset.fingerprint, config.seed, plugins, extra)
    key = digest({**identity, "fingerprint": parts.dataset.fingerprint})
    if config.queries == "validation":
        key = f"{VALIDATION_MARK.strip('-')}-{key}"
    path = config.output or workspace.sequences_file(
        parts.dataset.name, parts.dataset.task, config.model if uses_model else "", config.sampler, config.scorer, key
    )
    return path, provenance


def _search(
    config: GenerateConfig,
    parts: _Parts,
    session: Session,
    rows: IntArray,
    writer: SequenceWriter,
    progress: Progress,
) -> None:
    """Searches the anchors that are missing, group by group; each is safe on disk before the next group begins.

    Groups are those of a run from the start: where one was begun, all of it is searched again, so that what is found
    depends on no interruption. Only what is missing is written.
    """
    search = BeamSearch(parts.scorer, session, _options(config))
    size = config.anchors_at_once or anchors_to_fill(session.largest_batch, _options(config), config.candidates)
    missing = {int(r) for r in _missing(parts, rows, writer.finished)}
    groups = [g for g in (rows[low : low + size] for low in range(0, len(rows), size)) if missing & set(g.tolist())]
    with progress.task("searching sequences", len(rows), "anchors", done=len(rows) - len(missing)) as ticker:
        for group, anchors in _announced(config, parts, session, groups):
            for row, result in zip(group, search.search_many(anchors), strict=True):
                if int(row) in missing:
                    writer.append(result)
                    ticker.advance()


def _announced(
    config: GenerateConfig, parts: _Parts, session: Session, groups: Sequence[IntArray]
) -> Iterator[tuple[IntArray, list[tuple[Example, list[Example]]]]]:
    """(rows, (anchor, candidates) of each) group by group; a group's images are announced while the one before is searched."""
    pools = _pools(config, parts, np.concatenate(groups))
    waiting: deque[tuple[IntArray, list[tuple[Example, list[Example]]]]] = deque()
    for group in groups:
        anchors = [(parts.queries[row], parts.records.rows(pool)) for row, pool in islice(pools, len(group))]
        session.expect([query for query, _ in anchors] + [c for _, pool in anchors for c in pool])
        waiting.append((group, anchors))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _options(config: GenerateConfig) -> SearchOptions:
    return SearchOptions(config.shots, config.beam_size, config.construct_order, config.beam_score)


def _pools(config: GenerateConfig, parts: _Parts, anchors: IntArray) -> Iterator[tuple[int, IntArray]]:
    """(anchor row, candidate rows) for each anchor; pools do not depend on how anchors are chunked."""
    from icltool.store.arrays import index_set, query_set

    index = index_set(parts.records, parts.sampler.needs, parts.embeddings, guard=parts.guard)
    for low in range(0, len(anchors), POOL_CHUNK):
        rows = anchors[low : low + POOL_CHUNK]
        same = config.queries == "train"
        queries = query_set(parts.queries, parts.sampler.needs, parts.query_embeddings, rows, same, guard=parts.guard)
        drawn = parts.sampler.sample(index, queries, config.candidates, config.seed)
        pools = checked_rows(config.sampler, drawn, index, queries, config.candidates)
        yield from zip((int(r) for r in rows), pools, strict=True)


def _session(config: GenerateConfig, parts: _Parts, progress: Progress) -> Session:
    """The session that scores, its model loaded."""
    from icltool.store.arrays import FeatureTable

    if "model" in parts.scorer.needs:
        progress.detail(f"loading {config.model}")
    model: Model | None = None
    if "model" in parts.scorer.needs:
        model = component("models", config.model, **config.model_options())
    task = task_named(parts.dataset.task)
    lookup: FeatureSource | None = None
    if parts.embeddings is not None and parts.query_embeddings is not None:
        lookup = index = FeatureTable(parts.records, parts.embeddings)
        if config.queries != "train":
            lookup = _both_splits(index, FeatureTable(parts.queries, parts.query_embeddings), parts.queries)
    store = None
    if config.image_cache_disk and not config.dry_run:  # a dry run writes nothing
        from icltool.store.image_features import image_features_for

        store = image_features_for(model, config.model, config.workspace, config.image_cache_disk_mb)
    return open_session(
        task.name,
        model,
        generation_options({}, task, model),
        config.batch_size,
        config.image_cache_mb * 2**20,
        lookup,
        parts.records.references,
        prefix_bytes=prefix_bytes(config.prefix_cache_mb, model),
        image_workers=config.image_workers,
        image_store=store,
    )


def _both_splits(index: FeatureTable, queries: FeatureTable, records: Records) -> FeatureSource:
    """Features of index-set examples and of queries of another split, whose ids may be the same numbers."""
    own = {int(i) for i in records.ids}

    def lookup(kind: str, examples: Sequence[Example]) -> FloatArray:
        asked = [e.id in own and records[records.row_of(e.id)] == e for e in examples]
        return np.concatenate([(queries if q else index)(kind, [e]) for q, e in zip(asked, examples, strict=True)])

    return lookup


def _cost(
    config: GenerateConfig, parts: _Parts, rows: IntArray, path: Path, remarks: list[str], progress: Progress
) -> StageReport:
    """What `--dry-run` prints. Candidate pools are drawn for every anchor, so images are counted exactly."""
    from icltool.engine.cost import cost_rows, measure

    finished = _finished(path)
    missing = _missing(parts, rows, frozenset(finished))
    if not len(missing):
        return StageReport("Nothing to do", (), path, (*remarks, "up to date: every anchor was finished before"))
    images: set[int] = set()
    samples: list[tuple[Example, list[Example]]] = []
    with progress.task("drawing candidate pools", len(missing), "anchors") as ticker:
        for row, pool in _pools(config, parts, missing):
            images.update(parts.records.image_ids[pool].tolist(), [int(parts.queries.image_ids[row])])
            if len(samples) < SAMPLED_ANCHORS:
                samples.append((parts.queries[row], parts.records.rows(pool)))
            ticker.advance()
    with _session(config, parts, progress) as session:
        steps, image = measure(parts.scorer, session, _options(config), samples)
    cached = config.image_cache_mb * 2**20
    table, notes = cost_rows(steps, image, len(missing), len(images), cached)
    done = [f"{len(rows) - len(missing):,} of {len(rows):,} anchors were finished before"] if finished else []
    title = f"Cost of {len(missing):,} anchors of {parts.dataset.name} ({parts.dataset.task}), {config.model}"
    return StageReport(title, tuple(table), None, (*remarks, *done, *notes, *session.notes, f"would write {path}"))


def _report(
    config: GenerateConfig, dataset: PreparedDataset, file: Any, path: Path, searched: int, remarks: list[str]
) -> StageReport:
    if not len(file):
        raise ConfigError(f"{path} holds no sequences", "raise --anchors")
    arrays = file.arrays()
    gains = arrays["values"] - arrays["base_value"][:, None]
    row = {
        "anchors": len(file),
        "searched now": searched,
        "candidates": config.candidates,
        "beams": config.beam_size,
        "shots": config.shots,
        "mean value without ICDs": _mean(arrays["base_value"]),
        "mean gain of best beam": _mean(gains[:, 0]),
        "mean gain of last beam": _mean(gains[:, -1]),
    }
    return StageReport(f"Sequences for {dataset.name} ({dataset.task})", (row,), path, tuple(remarks))


def _mean(values: FloatArray) -> float | None:
    """None where there is no value: an anchor has fewer sequences than beams were asked for."""
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 4) if len(known) else None
