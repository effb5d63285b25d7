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
from icltool.config.env import VARIABLES
from icltool.config.identity import makers
from icltool.config.tasks import task_of
from icltool.contracts import (
    Example,
    FloatArray,
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
from icltool.execution.worker_context import MakeWorker, WorkerContext, place_of_work
from icltool.store.artefact import digest
from icltool.store.atomic import check_writable
from icltool.store.failures import GivenUp, clear_failures
from icltool.store.locking import locked
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceFile, SequenceWriter
from icltool.store.workspace import VALIDATION_MARK, Workspace

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset, Records

SAMPLED_ANCHORS = 8  # anchors whose prompts are timed for a cost plan


def run(config: GenerateConfig, progress: Progress) -> StageReport:
    """Generates what is missing: finished anchors of an earlier run are kept, whatever ended it.

    Raises StoreError where a data set or embeddings are missing or the file belongs to other options, ConfigError and
    PluginError for wrong components, DataError when an anchor has too few candidates.
    """
    if config.shots > config.candidates:
        raise ConfigError(
            f"{config.shots} shots from pools of {config.candidates} candidates", "raise --candidates, or lower --shots"
        )
    parts = open_parts(config)
    rows = _draw_anchors(parts.queries, config)
    path, provenance = _artefact(config, Workspace(config.workspace), parts, len(rows))
    remarks = [] if len(rows) == config.anchors else [f"there are only {len(rows)} examples: all are anchors"]
    made_for = parts.scorer.tasks if isinstance(parts.scorer, MadeForTasks) else ()
    if made_for and parts.dataset.task not in made_for and config.scorer not in task_of(parts.dataset).metrics:
        remarks.append(
            f"scorer {config.scorer} is made for {' and '.join(made_for)}: on {parts.dataset.task} it says little"
        )
    fault = too_few_references(parts.scorer, lambda: (e.references for e in parts.queries.rows(rows)))
    if fault is not None:
        raise fault
    if config.dry_run:
        return _cost(config, parts, rows, path, remarks, progress)
    if path.is_file():
        with locked(path):  # refused before a model is loaded, not after
            pass
    check_writable(path)
    missing = _missing(parts, rows, frozenset() if config.overwrite else _finished(path))
    if not len(missing) and path.is_file():
        with _writer(config, path, provenance, len(rows)):  # says what is wrong with the file, and mends what was cut
            pass
        clear_failures(path)
        remarks.append("up to date: every anchor was finished before")
        return _report(config, parts.dataset, SequenceFile.open(path), path, 0, remarks)
    run = Run[AnchorGroup, SearchedGroup](config.open_executor(), progress)
    searched, work = _search(config, parts, run, rows, missing, (path, provenance), progress)
    remarks += [*run.notes, *work.lines]
    if run.failures:
        raise _given_up(run, parts, path, rows, missing, progress)
    clear_failures(path)
    return _report(config, parts.dataset, SequenceFile.open(path), path, searched, remarks)


def _finished(path: Path) -> frozenset[int]:
    """Ids of the anchors that the file of an earlier run holds."""
    try:
        file = SequenceFile.open(path)
    except StoreError:  # not there; or damaged, which the writer will say
        return frozenset()
    found = frozenset(file.query_ids)
    file.close()
    return found


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
    if config.queries == "train":  # files of before there was a choice are the same
        del identity["queries"]
    extra: dict[str, object] = (
        {} if parts.embeddings is None else {"embeddings_fingerprint": parts.embeddings.fingerprint}
    )
    uses_model = "model" in parts.scorer.needs
    if not uses_model:
        identity.update(dict.fromkeys(("model", "model_path", "dtype", "quantization", "prompt_style")))
        identity.pop("prompt_template", None)
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
    path = config.output or workspace.sequences_file(
        parts.dataset.name, parts.dataset.task, config.model if uses_model else "", config.sampler, config.scorer, key
    )
    return path, provenance


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
    """Searches the anchors that are missing, group by group, each on disk as soon as it is found; (how many that were, what
    it took).

    Groups are those of a run from the start: where one was begun, all of it is searched again, so that what is found
    depends on no interruption. Only what is missing is written.
    """
    path, provenance = file
    size = config.anchors_at_once or anchors_to_fill(_largest_batch(config), search_options(config), config.candidates)
    wanted = {int(r) for r in missing}
    groups = [g for g in (rows[low : low + size] for low in range(0, len(rows), size)) if wanted & set(g.tolist())]
    works: list[Work] = []
    if "model" in parts.scorer.needs:
        progress.detail(f"loading {config.model}")
    with ExitStack() as opened:
        if path.is_file() and not config.overwrite:  # one of other options is refused before a model is loaded
            writer = opened.enter_context(_writer(config, path, provenance, len(rows)))
        ticker = opened.enter_context(
            progress.task("searching sequences", len(rows), "anchors", done=len(rows) - len(missing))
        )
        units: Iterable[AnchorGroup] = anchor_groups(config, parts, groups)
        if config.ship_data:
            units = list(units)
        place = opened.enter_context(_place(config, parts, run, units))
        found = opened.enter_context(run.results(MakeWorker(Searcher, config, place), units))
        if not path.is_file() or config.overwrite:
            first = list(islice(found, 1))  # before there is a file: one without anchors would only be in the way
            if not first:  # all were given up: what was there before stays
                return 0, Work()
            writer = opened.enter_context(_writer(config, path, provenance, len(rows)))
            found = chain(first, found)
        for group in found:
            works.append(group.work)
            run.show(ticker)
            for row, result in zip(group.rows, group.results, strict=True):
                if int(row) in wanted:
                    writer.append(result)
                    ticker.advance()
        done = len(writer.finished)
    return done - (len(rows) - len(missing)), total(works)


def _place(
    config: GenerateConfig, parts: SearchParts, run: Run[AnchorGroup, SearchedGroup], units: Iterable[AnchorGroup]
) -> AbstractContextManager[WorkerContext]:
    """The place that workers are told; what it sends are the images of all anchors and candidates, and embeddings where
    the scorer reads them."""
    images: set[str] = set()
    for unit in units if config.ship_data else ():
        images |= {parts.queries.images[row] for row in unit.rows}
        images |= {parts.records.images[row] for pool in unit.pools for row in pool}
    files = [file.path for file in (parts.embeddings, parts.query_embeddings) if file is not None]
    return place_of_work(run.executor, parts.dataset.folder, images, files, ship=config.ship_data, variables=VARIABLES)


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
    wanted = {int(r) for r in missing}
    told: list[tuple[UnitFailure, str, GivenUp]] = []
    for failure in run.failures:
        ids = [int(parts.queries.ids[row]) for row in failure.unit.rows if int(row) in wanted]
        name = f"anchor{'s' * (len(ids) > 1)} {', '.join(map(str, ids))}"
        told.append((failure, name, {"anchors": ids, "count": len(ids)}))
    return give_up(told, path, len(rows), "anchors", progress)


def _cost(
    config: GenerateConfig, parts: SearchParts, rows: IntArray, path: Path, remarks: list[str], progress: Progress
) -> StageReport:
    """What `--dry-run` prints. Candidate pools are drawn for every anchor, so images are counted exactly."""
    finished = _finished(path)
    missing = _missing(parts, rows, finished)
    if not len(missing):
        return StageReport("Nothing to do", (), path, (*remarks, "up to date: every anchor was finished before"))
    images: set[int] = set()
    samples: list[tuple[Example, list[Example]]] = []
    with progress.task("drawing candidate pools", len(missing), "anchors") as ticker:
        for row, pool in candidate_pools(config, parts, missing):
            images.update(parts.records.image_ids[pool].tolist(), [int(parts.queries.image_ids[row])])
            if len(samples) < SAMPLED_ANCHORS:
                samples.append((parts.queries[row], parts.records.rows(pool)))
            ticker.advance()
    with open_search_session(config, parts) as session:
        steps, image = measure(parts.scorer, session, search_options(config), samples)
    cached = config.image_cache_mb * 2**20
    table, notes = cost_rows(steps, image, len(missing), len(images), cached)
    done = [f"{len(rows) - len(missing):,} of {len(rows):,} anchors were finished before"] if finished else []
    title = f"Cost of {len(missing):,} anchors of {parts.dataset.name} ({parts.dataset.task}), {config.model}"
    return StageReport(title, tuple(table), None, (*remarks, *done, *notes, *session.notes, f"would write {path}"))


def _report(
    config: GenerateConfig, dataset: PreparedDataset, file: SequenceFile, path: Path, searched: int, remarks: list[str]
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
        "mean value without demonstrations": _mean(arrays["base_value"]),
        "mean gain of best beam": _mean(gains[:, 0]),
        "mean gain of last beam": _mean(gains[:, -1]),
    }
    title = f"Sequences for {dataset.name} ({dataset.task}), valued by {config.scorer}"
    return StageReport(title, (row,), path, tuple(remarks))


def _mean(values: FloatArray) -> float | None:
    """None where there is no value: an anchor has fewer sequences than beams were asked for."""
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 4) + 0.0 if len(known) else None  # + 0.0: never -0
