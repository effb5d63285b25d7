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
from icltool.commands.embed.worker import EncodedRows, Encoding, Rows, embedded_fields
from icltool.config.env import VARIABLES
from icltool.config.identity import makers
from icltool.contracts import Progress, StageReport, Ticker, UnitFailure
from icltool.errors import StoreError
from icltool.execution.running import Run, give_up
from icltool.execution.worker_context import MakeWorker, place_of_work
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

#: Batches that a worker in another process is given at a time.
BATCHES = 4
SPLITS = ("train", "validation")


def run(config: EmbedConfig, progress: Progress) -> StageReport:
    """Embeds both splits; a split that is complete is left as it is.

    Raises StoreError when no data set is prepared or an artefact of other options is in the way, DataError for an image
    that cannot be read.
    """
    workspace = Workspace(config.workspace)
    name, task = workspace.choose_dataset(config.dataset, config.task)
    dataset = open_dataset(workspace.dataset_folder(name, task))
    dataset.check_images()
    path = None if config.encoder_path is None else str(config.encoder_path)
    made_by = makers([("encoders", config.encoder)], {"encoders": path})
    jobs = [
        _Job(dataset, split, workspace.embeddings_file(name, task, split, config.encoder), made_by) for split in SPLITS
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
    remarks = tuple(run.notes) if waiting else ("up to date: everything was embedded before",)
    return StageReport(f"Embeddings of {name} ({task}) by {config.encoder}", tuple(rows), workspace.embeddings, remarks)


def _fold(jobs: list[_Job], config: EmbedConfig, progress: Progress) -> None:
    """Takes the rows that a killed run left beside its finished files into them."""
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
        """Whether the file holds all rows of this very data set, made with these options. StoreError where other weights, or
        another version of the encoder's plugin, made them."""
        if not self.path.is_file():
            return False
        file = EmbeddingFile.open(self.path)
        made = (file.provenance.configuration, file.provenance.dataset_fingerprint)
        if made != (self.identity(config), self.dataset.fingerprint):
            return False
        file.provenance.makers.check(self.path, self.made_by)
        return file.complete


def _embed(config: EmbedConfig, jobs: list[_Job], run: Run[Rows, EncodedRows], progress: Progress) -> dict[str, int]:
    """Embeds what is missing of these splits; how many rows of each that was.

    Rows are on disk as soon as they come, in whatever order. Raises DataError at the end where some could not be made.
    """
    work = _Splits(config, jobs, progress)
    first = jobs[0].dataset
    progress.detail(f"loading {config.encoder}")
    with ExitStack() as opened:
        work.open(opened)
        images = chain.from_iterable(job.dataset.split(job.split).images for job in jobs)
        sent = place_of_work(run.executor, first.folder, images, ship=config.ship_data, variables=VARIABLES)
        place = opened.enter_context(sent)
        make = MakeWorker(partial(Encoding, name=first.name, task=first.task), config, place)
        found = opened.enter_context(run.results(make, work.units()))
        for encoded in found:
            work.store(encoded, opened, run)
    errors = []
    for job in jobs:
        lost = [failure for failure in run.failures if failure.unit.split == job.split]
        if not lost:
            clear_failures(job.path)
            continue
        told: list[tuple[UnitFailure, str, GivenUp]] = []
        for failure in lost:
            unit = failure.unit
            ids = job.dataset.split(job.split).ids[unit.low : unit.high].tolist()
            name = f"rows {unit.low} to {unit.high - 1} of {unit.split}"
            told.append((failure, name, {"split": unit.split, "examples": ids, "count": len(ids)}))
        errors.append(give_up(told, job.path, len(job.dataset.split(job.split)), f"examples of {job.split}", progress))
    if errors:
        raise errors[0]
    return work.embedded


class _Splits:
    """The splits of a run, each with its file, which is opened when it is first written, and its progress."""

    def __init__(self, config: EmbedConfig, jobs: list[_Job], progress: Progress) -> None:
        self.config, self.progress = config, progress
        self.jobs = {job.split: job for job in jobs}
        self.embedded = dict.fromkeys(self.jobs, 0)
        self._writers: dict[str, EmbeddingWriter] = {}
        self._tickers: dict[str, Ticker] = {}
        self._fingerprint = ""

    def open(self, opened: ExitStack) -> None:
        """Opens the files that are there: one of other options is refused before an encoder is loaded."""
        for job in self.jobs.values():
            if job.path.is_file() and not self.config.overwrite:
                with EmbeddingFile.open(job.path) as file:
                    dim, fingerprint = file.dim, file.encoder_fingerprint
                self._writer(job, dim, fingerprint, opened)

    def units(self) -> Iterator[Rows]:
        """What is missing, split by split."""
        for job in self.jobs.values():
            total, step = len(job.dataset.split(job.split)), self.config.batch_size
            if self.config.executor_name != "local":
                step *= BATCHES
            writer = self._writers.get(job.split)
            whole = (range(low, min(low + step, total)) for low in range(0, total, step))
            for rows in whole if writer is None else writer.missing(step):
                yield Rows(job.split, rows.start, rows.stop)

    def store(self, encoded: EncodedRows, opened: ExitStack, run: Run[Rows, EncodedRows]) -> None:
        """Writes what came. Raises StoreError where workers have other weights than one another, or than the file."""
        job, rows = self.jobs[encoded.rows.split], encoded.rows
        writer = self._writers.get(job.split) or self._writer(job, encoded.dim, encoded.fingerprint, opened)
        made_by = str(writer.header.details["encoder_fingerprint"])
        if encoded.fingerprint != made_by:
            raise StoreError(
                f"{job.path} was made by {self.config.encoder} with weights {made_by}, a worker has {encoded.fingerprint}",
                "give every worker the same weights; --overwrite starts the file anew",
            )
        writer.put(rows.low, encoded.ids, encoded.features)
        self.embedded[job.split] += rows.high - rows.low
        run.show(self._tickers[job.split])
        self._tickers[job.split].advance(rows.high - rows.low)

    def _writer(self, job: _Job, dim: int, fingerprint: str, opened: ExitStack) -> EmbeddingWriter:
        records = job.dataset.split(job.split)
        provenance = Provenance.by(job.made_by, job.identity(self.config), job.dataset.fingerprint)
        writer = EmbeddingWriter(
            job.path,
            provenance,
            self.config.encoder,
            fingerprint,
            dim,
            embedded_fields(records),
            len(records),
            dtype=self.config.precision,
            overwrite=self.config.overwrite,
        )
        self._writers[job.split] = opened.enter_context(writer)
        task = self.progress.task(f"embedding {job.split}", len(records), "examples", done=writer.there)
        self._tickers[job.split] = opened.enter_context(task)
        return writer
