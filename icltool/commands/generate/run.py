"""Searches the demonstration sequences that a selector learns from.

Reads: datasets/<name>/<task>/, embeddings/ where sampler or scorer ask for them
Writes: sequences/<name>-<task>-<model>-<sampler>-<scorer>-<digest>.h5
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.generate.options import GenerateConfig
from icltool.commands.generate.report import MeanScores, SequencesReport
from icltool.commands.generate.search import (
    AnchorGroup,
    SearchedGroup,
    Searcher,
    SearchParts,
    anchor_groups,
    candidate_pools,
    open_parts,
    open_search_session,
    search_options,
)
from icltool.config.choices import choice_identity
from icltool.config.env import VARIABLES
from icltool.config.identity import makers
from icltool.contracts import (
    Example,
    IntArray,
    Progress,
    StageReport,
    keyed_generator,
    too_few_references,
)
from icltool.contracts.abilities import MadeForTasks
from icltool.contracts.executor import UnitFailure
from icltool.contracts.randomness import QUERIES, drawn
from icltool.engine.batching import LARGEST_ON_CPU, LARGEST_ON_GPU
from icltool.engine.beam import anchors_to_fill
from icltool.engine.cost import cost_rows, measure
from icltool.engine.work import Work, total
from icltool.errors import ConfigError, StoreError
from icltool.execution.running import Run, give_up
from icltool.execution.worker_context import MakeWorker, WorkerContext, worker_context
from icltool.plugin.manager import load_registry
from icltool.store.artefact import digest
from icltool.store.atomic import check_writable
from icltool.store.failures import GivenUp, clear_failures
from icltool.store.locking import locked
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceFile, SequenceWriter
from icltool.store.workspace import VALIDATION_MARK, Workspace, earlier_or

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset, Records

SAMPLED_ANCHORS = 8  # anchors whose prompts are timed for a cost plan


def run(config: GenerateConfig, progress: Progress) -> StageReport:
    """Searches the anchors that no earlier run has finished.

    Raises StoreError if a data set or embeddings are missing or the file was made with other options, ConfigError and
    PluginError for wrong components, DataError if an anchor has too few candidates.
    """
    if config.shots > config.candidates:
        raise ConfigError(
            f"--shots {config.shots} needs pools of at least as many candidates, got --candidates {config.candidates}",
            "raise --candidates, or lower --shots",
        )
    parts = open_parts(config)
    if "model" in parts.scorer.needs:
        config.check_model(progress)
    rows = _draw_anchors(parts.queries, config)
    path, provenance = _artefact(config, Workspace(config.workspace), parts, len(rows))
    remarks = (
        []
        if len(rows) == config.anchors
        else [f"--anchors {config.anchors:,}: the data set has only {len(rows):,} examples, so all are anchors"]
    )
    made_for = parts.scorer.tasks if isinstance(parts.scorer, MadeForTasks) else ()
    if made_for and parts.dataset.task not in made_for and config.scorer not in parts.task.metrics:
        remarks.append(
            f"scorer {config.scorer} is made for {' and '.join(made_for)}; on {parts.dataset.task} its scores mean little"
        )
    fault = too_few_references(parts.scorer, lambda: (e.references for e in parts.queries.rows(rows)))
    if fault is not None:
        raise fault
    if config.dry_run:
        return _cost(config, parts, rows, path, remarks, progress)
    if path.is_file():
        with locked(path):  # refused before a model is loaded
            pass
    check_writable(path)
    missing = _missing(parts, rows, frozenset() if config.overwrite else _finished(path))
    if not len(missing) and path.is_file():
        with _writer(config, path, provenance, len(rows)):  # reports a damaged file, and repairs one that was cut off
            pass
        clear_failures(path)
        remarks.append("up to date: an earlier run finished every anchor")
        return _report(config, parts.dataset, SequenceFile.open(path), path, 0, remarks)
    run = Run[AnchorGroup, SearchedGroup](config.open_executor(), progress)
    searched, work = _search(config, parts, run, rows, missing, (path, provenance), progress)
    remarks += [*run.notes, *work.lines]
    if run.failures:
        raise _given_up(run, parts, path, rows, missing, progress)
    clear_failures(path)
    return _report(config, parts.dataset, SequenceFile.open(path), path, searched, remarks)


def _finished(path: Path) -> frozenset[int]:
    """Ids of the anchors in the file of an earlier run."""
    try:
        file = SequenceFile.open(path)
    except StoreError:  # missing; or damaged, which the writer reports
        return frozenset()
    ids = frozenset(file.query_ids)
    file.close()
    return ids


def _missing(parts: SearchParts, rows: IntArray, finished: frozenset[int]) -> IntArray:
    return np.array([r for r in rows if int(parts.queries.ids[r]) not in finished], dtype=np.int64)


def _draw_anchors(records: Records, config: GenerateConfig) -> IntArray:
    """Rows of the anchors, in drawn order; a smaller number of anchors gives the first of a larger one. Of the validation split
    they are the queries that `icltool evaluate --test-size` takes."""
    if config.queries == "validation":
        return drawn(QUERIES, len(records))[: config.anchors]
    order = keyed_generator(config.seed, "generate.anchors").permutation(len(records))
    return order[: config.anchors].astype(np.int64)


def _artefact(
    config: GenerateConfig, workspace: Workspace, parts: SearchParts, anchors: int
) -> tuple[Path, Provenance]:
    """(path, provenance) of the sequences file; the path carries a digest of everything that decides its content."""
    identity = {**config.identity(), "dataset": parts.dataset.name, "task": parts.dataset.task, "anchors": anchors}
    identity["encoder"], identity["leak_guard"] = parts.encoder, sorted(parts.guard)
    identity.update(parts.dataset.identity())
    if config.queries == "train":  # files written before this option existed are the same
        del identity["queries"]
    extra: dict[str, object] = (
        {} if parts.embeddings is None else {"embeddings_fingerprint": parts.embeddings.fingerprint}
    )
    uses_model = "model" in parts.scorer.needs
    if uses_model:
        identity.update(choice_identity(parts.task))
        config.check_images(parts.dataset.name, parts.queries.most_images)
    if not uses_model:
        identity.update(dict.fromkeys(("model", "model_path", "dtype", "quantization", "prompt_style")))
        for option in ("prompt_template", "prompt", "template_options"):
            identity.pop(option, None)
    chosen = [
        ("samplers", config.sampler),
        ("scorers", config.scorer),
        *([("models", config.model)] if uses_model else []),
    ]
    made_by = makers(chosen, {"models": config.model_path})
    provenance = Provenance.by(made_by, identity, parts.dataset.fingerprint, config.seed, **extra)
    key = digest({**identity, "fingerprint": parts.dataset.fingerprint})
    if config.queries == "validation":
        key = f"{VALIDATION_MARK.strip('-')}-{key}"
    path, earlier = (
        workspace.sequences_file(
            parts.dataset.name, parts.dataset.task, name if uses_model else "", config.sampler, config.scorer, key
        )
        for name in (config.model_name, config.model)
    )
    return config.output or earlier_or(path, earlier), provenance


def _writer(config: GenerateConfig, path: Path, provenance: Provenance, anchors: int) -> SequenceWriter:
    return SequenceWriter(
        path, provenance, config.shots, config.beam_size, config.candidates, anchors, overwrite=config.overwrite
    )


def _search(
    config: GenerateConfig,
    parts: SearchParts,
    run: Run[AnchorGroup, SearchedGroup],
    rows: IntArray,
    missing: IntArray,
    file: tuple[Path, Provenance],
    progress: Progress,
) -> tuple[int, Work]:
    """Searches the missing anchors group by group and writes each at once; (number of anchors, work done).

    Groups are those of an uninterrupted run: if one was begun, all of its anchors are searched again, so that the result
    does not depend on interruptions. Only missing anchors are written.
    """
    path, provenance = file
    size = config.anchors_at_once or anchors_to_fill(_largest_batch(config), search_options(config), config.candidates)
    unfinished = {int(r) for r in missing}
    row_groups = [rows[low : low + size] for low in range(0, len(rows), size)]
    works: list[Work] = []
    if "model" in parts.scorer.needs:
        progress.detail(f"loading {config.model_name}")
    with ExitStack() as opened:
        if path.is_file() and not config.overwrite:  # a file of other options is refused before a model is loaded
            writer = opened.enter_context(_writer(config, path, provenance, len(rows)))
        ticker = opened.enter_context(
            progress.task("searching sequences", len(rows), "anchors", done=len(rows) - len(missing))
        )
        groups: Iterable[AnchorGroup] = anchor_groups(
            config, parts, [group for group in row_groups if unfinished & set(group.tolist())]
        )
        if config.ship_data:
            groups = list(groups)
        context = opened.enter_context(_context(config, parts, run, groups))
        searched = opened.enter_context(run.results(MakeWorker(Searcher, config, context), groups))
        if not path.is_file() or config.overwrite:
            first = list(islice(searched, 1))  # no file is made if no anchor succeeds
            if not first:  # all failed: an earlier file stays
                return 0, Work()
            writer = opened.enter_context(_writer(config, path, provenance, len(rows)))
            searched = chain(first, searched)
        for group in searched:
            works.append(group.work)
            run.show(ticker)
            results = [r for row, r in zip(group.rows, group.results, strict=True) if int(row) in unfinished]
            for result in results:
                writer.append(result)
            ticker.advance(len(results))
        done = len(writer.finished)
    return done - (len(rows) - len(missing)), total(works)


def _context(
    config: GenerateConfig, parts: SearchParts, run: Run[AnchorGroup, SearchedGroup], groups: Iterable[AnchorGroup]
) -> AbstractContextManager[WorkerContext]:
    """The context of the workers; with --ship-data it sends the images of all anchors and candidates, and the embeddings that
    the scorer reads."""
    images: set[str] = set()
    for group in groups if config.ship_data else ():
        images.update(image for row in group.rows for image in parts.queries.image_lists[row])
        images.update(image for pool in group.pools for row in pool for image in parts.records.image_lists[row])
    files = [file.path for file in (parts.embeddings, parts.query_embeddings) if file is not None]
    return worker_context(run.executor, parts.dataset.folder, images, files, ship=config.ship_data, variables=VARIABLES)


def _largest_batch(config: GenerateConfig) -> int:
    """The batch size that was asked for; with "auto" the largest that is tried where the model will run."""
    if config.batch_size != "auto":
        return config.batch_size
    gpu = config.device != "cpu" and config.gpus_per_worker != 0
    if gpu and config.device == "auto" and not (config.devices or config.gpus_per_worker or config.address):
        import torch

        gpu = torch.cuda.is_available()
    return LARGEST_ON_GPU if gpu else LARGEST_ON_CPU


def _given_up(
    run: Run[AnchorGroup, SearchedGroup],
    parts: SearchParts,
    path: Path,
    rows: IntArray,
    missing: IntArray,
    progress: Progress,
) -> Exception:
    """The error that names the anchors whose groups failed, once they are listed."""
    unfinished = {int(r) for r in missing}
    failures: list[tuple[UnitFailure, str, GivenUp]] = []
    for failure in run.failures:
        ids = [int(parts.queries.ids[row]) for row in failure.unit.rows if int(row) in unfinished]
        name = f"anchor{'s' * (len(ids) > 1)} {', '.join(map(str, ids))}"
        failures.append((failure, name, {"anchors": ids, "count": len(ids)}))
    return give_up(failures, path, len(rows), "anchors", progress)


def _cost(
    config: GenerateConfig, parts: SearchParts, rows: IntArray, path: Path, remarks: list[str], progress: Progress
) -> StageReport:
    """The report of --dry-run. Candidate pools are drawn for every anchor, so the number of images is exact."""
    finished = _finished(path)
    missing = _missing(parts, rows, finished)
    if not len(missing):
        return StageReport("Nothing to do", (), path, (*remarks, "up to date: an earlier run finished every anchor"))
    images: set[int] = set()
    samples: list[tuple[Example, list[Example]]] = []
    with progress.task("drawing candidate pools", len(missing), "anchors") as ticker:
        for row, pool in candidate_pools(config, parts, missing):
            images |= parts.records.images_in(pool) | parts.queries.images_in(np.array([row]))
            if len(samples) < SAMPLED_ANCHORS:
                samples.append((parts.queries[row], parts.records.rows(pool)))
            ticker.advance()
    with open_search_session(config, parts) as session:
        steps, image = measure(parts.scorer, session, search_options(config), samples)
    cached = config.image_cache_mb * 2**20
    table, notes = cost_rows(steps, image, len(missing), len(images), cached)
    done = [f"an earlier run finished {len(rows) - len(missing):,} of {len(rows):,} anchors"] if finished else []
    title = f"Cost of {len(missing):,} anchors of {parts.dataset.name} ({parts.dataset.task}), {config.model_name}"
    return StageReport(title, tuple(table), None, (*remarks, *done, *notes, *session.notes, f"would write {path}"))


def _report(
    config: GenerateConfig, dataset: PreparedDataset, file: SequenceFile, path: Path, searched: int, remarks: list[str]
) -> StageReport:
    if not len(file):
        raise ConfigError(f"{path} has no sequences", "raise --anchors")
    arrays = file.arrays()
    scores = MeanScores.of(arrays["values"], arrays["base_value"])
    row = {
        "anchors": len(file),
        "searched now": searched,
        "candidates": config.candidates,
        "beams": config.beam_size,
        "shots": config.shots,
        "mean value without demonstrations": round(scores.base, 4),
        "mean gain of best beam": _rounded(scores.gains[0]),
        "mean gain of last beam": _rounded(scores.gains[-1]),
    }
    score = f"{load_registry().get('scorers', config.scorer).registration.summary} ({config.scorer})"
    title = f"Sequences for {dataset.name} ({dataset.task})"
    return SequencesReport(title, (row,), path, tuple(remarks), scores=scores, score=score)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4) + 0.0  # + 0.0: never -0
