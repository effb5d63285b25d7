"""Embeds images and retrieval texts.

Reads: datasets/<name>/<task>/
Writes: embeddings/<name>-<task>-<split>-<encoder>.h5
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.commands.embed.options import EmbedConfig
from icltool.commands.embed.worker import EncodedRows, Encoding, Rows, check_field
from icltool.config.env import VARIABLES
from icltool.config.identity import makers
from icltool.contracts import Progress, StageReport, Ticker, UnitFailure
from icltool.errors import StoreError
from icltool.execution.running import Run, give_up
from icltool.execution.worker_context import MakeWorker, worker_context
from icltool.store.embeddings import EmbeddingFile, EmbeddingWriter
from icltool.store.failures import GivenUp, clear_failures
from icltool.store.journal import journal_path
from icltool.store.provenance import Provenance
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icltool.store.makers import Makers
    from icltool.store.records import PreparedDataset

#: Batches in one unit of work for a worker in another process.
BATCHES = 4
SPLITS = ("train", "validation")


def run(config: EmbedConfig, progress: Progress) -> StageReport:
    """Embeds the rows of index set and queries that are not embedded yet.

    Raises StoreError if no data set is prepared or a file was made with other options, DataError for an image that cannot be
    read.
    """
    workspace = Workspace(config.workspace)
    name, task = workspace.choose_dataset(config.dataset, config.task)
    dataset = open_dataset(workspace.dataset_folder(name, task))
    dataset.check_images()
    splits = [split for split in SPLITS if split in dataset.splits]
    check_field(dataset.split(splits[0]), config.text_field)
    encoder = config.chosen_encoder()
    made_by = makers([("encoders", encoder.component)], {"encoders": encoder.options.get("path")})
    jobs = [
        _Job(dataset, split, workspace.embeddings_file(name, task, split, config.label), made_by) for split in splits
    ]
    waiting = [job for job in jobs if config.overwrite or not job.is_complete(config)]
    _fold([job for job in jobs if job not in waiting], config, progress)
    run = Run[Rows, EncodedRows](config.open_executor(), progress)
    embedded = _embed(config, waiting, run, progress) if waiting else {}
    rows = [
        {
            "split": job.split,
            "examples": len(dataset.split(job.split)),
            "embedded now": embedded.get(job.split, 0),
            "file": job.path.name,
        }
        for job in jobs
    ]
    remarks = [*run.notes] if waiting else ["up to date: an earlier run embedded everything"]
    if (lacking := _lacking(jobs[0])) is not None:
        remarks.append(f"{config.encoder} encodes {lacking} only")
    return StageReport(
        f"Embeddings of {name} ({task}) by {config.label}", tuple(rows), workspace.embeddings, tuple(remarks)
    )


def _lacking(job: _Job) -> str | None:
    """ "images" or "texts" if the encoder of a split's embeddings encodes no others; else None."""
    with EmbeddingFile.open(job.path) as file:
        if "text" not in file.fields:
            return "images"
        return "texts" if "image" not in file.fields and job.dataset.split(job.split).has_images else None


def _fold(jobs: list[_Job], config: EmbedConfig, progress: Progress) -> None:
    """Moves rows that a killed run left in a journal into their files."""
    if left := [job for job in jobs if journal_path(job.path).exists()]:
        with ExitStack() as opened:
            _Splits(config, left, progress).open(opened)


@dataclass(frozen=True)
class _Job:
    """One split and the file its embeddings go to."""

    dataset: PreparedDataset
    split: str
    path: Path
    made_by: Makers

    def identity(self, config: EmbedConfig) -> dict[str, object]:
        return {**config.identity(), "dataset": self.dataset.name, "task": self.dataset.task, "split": self.split}

    def is_complete(self, config: EmbedConfig) -> bool:
        """Whether the file holds all rows of this data set, made with these options. StoreError if they were made by other
        weights, or by another version of the encoder's plugin."""
        if not self.path.is_file():
            return False
        file = EmbeddingFile.open(self.path)
        source = (file.provenance.configuration, file.provenance.dataset_fingerprint)
        if source != (self.identity(config), self.dataset.fingerprint):
            return False
        file.provenance.makers.check(self.path, self.made_by)
        return file.complete


def _embed(config: EmbedConfig, jobs: list[_Job], run: Run[Rows, EncodedRows], progress: Progress) -> dict[str, int]:
    """Embeds the missing rows of these splits; the number of rows by split.

    Rows are written as they come, in any order. Raises DataError at the end if some of them failed.
    """
    work = _Splits(config, jobs, progress)
    first = jobs[0].dataset
    progress.detail(f"loading {config.encoder}")
    with ExitStack() as opened:
        work.open(opened)
        images = chain.from_iterable(chain(*job.dataset.split(job.split).image_lists) for job in jobs)
        entering = worker_context(run.executor, first.folder, images, ship=config.ship_data, variables=VARIABLES)
        context = opened.enter_context(entering)
        make = MakeWorker(partial(Encoding, name=first.name, task=first.task), config, context)
        encoded_rows = opened.enter_context(run.results(make, work.missing()))
        for encoded in encoded_rows:
            work.store(encoded, opened, run)
    errors = []
    for job in jobs:
        lost = [failure for failure in run.failures if failure.unit.split == job.split]
        if not lost:
            clear_failures(job.path)
            continue
        failures: list[tuple[UnitFailure, str, GivenUp]] = []
        for failure in lost:
            unit = failure.unit
            ids = job.dataset.split(job.split).ids[unit.low : unit.high].tolist()
            name = f"rows {unit.low} to {unit.high - 1} of {unit.split}"
            failures.append((failure, name, {"split": unit.split, "examples": ids, "count": len(ids)}))
        errors.append(
            give_up(failures, job.path, len(job.dataset.split(job.split)), f"examples of {job.split}", progress)
        )
    if errors:
        raise errors[0]
    return work.embedded


class _Splits:
    """The splits of a run, each with its progress and its file, which is opened for the first rows."""

    def __init__(self, config: EmbedConfig, jobs: list[_Job], progress: Progress) -> None:
        self.config, self.progress = config, progress
        self.jobs = {job.split: job for job in jobs}
        self.embedded = dict.fromkeys(self.jobs, 0)
        self._writers: dict[str, EmbeddingWriter] = {}
        self._tickers: dict[str, Ticker] = {}
        self._fingerprint = ""

    def open(self, opened: ExitStack) -> None:
        """Opens existing files, so that one of other options is refused before an encoder is loaded."""
        for job in self.jobs.values():
            if job.path.is_file() and not self.config.overwrite:
                with EmbeddingFile.open(job.path) as file:
                    dim, fingerprint, fields = file.dim, file.encoder_fingerprint, file.fields
                self._writer(job, dim, fingerprint, fields, opened)

    def missing(self) -> Iterator[Rows]:
        """The missing rows, split by split."""
        for job in self.jobs.values():
            total, step = len(job.dataset.split(job.split)), self.config.batch_size
            if self.config.executor_name != "local":
                step *= BATCHES
            writer = self._writers.get(job.split)
            whole = (range(low, min(low + step, total)) for low in range(0, total, step))
            for rows in whole if writer is None else writer.missing(step):
                yield Rows(job.split, rows.start, rows.stop)

    def store(self, encoded: EncodedRows, opened: ExitStack, run: Run[Rows, EncodedRows]) -> None:
        """Writes encoded rows. Raises StoreError if a worker's weights differ from those of the file."""
        job, rows = self.jobs[encoded.rows.split], encoded.rows
        writer = self._writers.get(job.split)
        if writer is None:
            writer = self._writer(job, encoded.dim, encoded.fingerprint, tuple(encoded.features), opened)
        made_by = str(writer.header.details["encoder_fingerprint"])
        if encoded.fingerprint != made_by:
            raise StoreError(
                f"{job.path} was made with weights {made_by} of {self.config.encoder}, but a worker has {encoded.fingerprint}",
                "give every worker the same weights, or restart the file with --overwrite",
            )
        writer.put(rows.low, encoded.ids, encoded.features)
        self.embedded[job.split] += rows.high - rows.low
        run.show(self._tickers[job.split])
        self._tickers[job.split].advance(rows.high - rows.low)

    def _writer(
        self, job: _Job, dim: int, fingerprint: str, fields: tuple[str, ...], opened: ExitStack
    ) -> EmbeddingWriter:
        records = job.dataset.split(job.split)
        provenance = Provenance.by(job.made_by, job.identity(self.config), job.dataset.fingerprint)
        writer = EmbeddingWriter(
            job.path,
            provenance,
            self.config.label,
            fingerprint,
            dim,
            fields,
            len(records),
            dtype=self.config.precision,
            overwrite=self.config.overwrite,
        )
        self._writers[job.split] = opened.enter_context(writer)
        task = self.progress.task(f"embedding {job.split}", len(records), "examples", done=writer.there)
        self._tickers[job.split] = opened.enter_context(task)
        return writer
