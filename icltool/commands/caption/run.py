"""Captions images that a file lists, or random examples of the validation split.

Reads: the JSON file of --input and its images; datasets/<name>/<task>/ for samples, demonstrations and styles
Writes: captions/, or --output; `.NAME.journal` beside it until all captions are finished
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.commands.caption.answer_session import AnswerSession
from icltool.commands.caption.caption_file import (
    Captions,
    captions_for,
    check_target,
    finished_captions,
    write_captions,
)
from icltool.commands.caption.demonstrations import RandomDemonstrations, random_rows
from icltool.commands.caption.entries import (
    Entry,
    check_fields,
    check_image,
    digest_of,
    entry_of,
    read_entries,
    task_of_entries,
)
from icltool.commands.caption.options import CaptionConfig
from icltool.commands.caption.styles import check_styles, prepared_styles, styles_in, styles_of_model
from icltool.config.identity import makers
from icltool.config.tasks import named_task, task_of
from icltool.contracts import Example, Progress, StageReport, Task, image_file
from icltool.errors import ConfigError, DataError
from icltool.releases import __version__
from icltool.store.arrays import guard_kinds
from icltool.store.artefact import digest
from icltool.store.makers import MadeBy
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace, earlier_or

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset

#: Images between two entries of the journal, if the batch size is "auto".
CHUNK_OF_AUTO = 64
#: The largest number of captions printed.
SHOWN = 5


@dataclass(frozen=True)
class _Job:
    """What is captioned: its `name` in messages, the entries, their task, and the data set, if one is needed."""

    name: str
    source: Path
    entries: list[Entry]
    task: Task
    dataset: PreparedDataset | None
    remarks: tuple[str, ...] = ()


def run(config: CaptionConfig, progress: Progress) -> StageReport:
    """Captions all entries, or those that an interrupted run of the same call left. `model_revision` in the file is the
    fingerprint of the model: a hash of its weights, precision and prompt format.

    All checks that need no model are done before it is loaded. Raises DataError for the input file, its images and styles,
    StoreError if a data set is missing or the output cannot be written, ConfigError for a task that the model does not
    know, and what loading raises.
    """
    config.check_model(progress)
    job = _job(config)
    styled = "style" in job.task.fields and config.samples is None and not config.any_style
    listed = styles_in(config.styles) if config.styles is not None else []
    if styled and listed:
        _check_styles(job, listed)
    identity = _identity(config, job)
    target = _target(config, job, identity)
    call = {"digest": digest(identity), **_makers(config)}
    if not config.overwrite and (finished := finished_captions(target, call)) is not None:
        return _report(
            config, job, finished, target, ["up to date: an earlier run of the same call captioned everything"]
        )
    check_target(target, config.overwrite, (config.input, config.styles))
    draw = _drawing(config, job)
    draw(job.entries[0].example)  # raises for too few demonstrations, before the model is loaded
    remarks = list(job.remarks)
    with AnswerSession(config, job.task, progress) as session:
        if styled and not listed:
            listed = styles_of_model(session.model) or prepared_styles(config.workspace, config.dataset)
            _check_styles(job, listed)
            if not listed:
                remarks.append("styles were not checked: no list of them is known (give one with --styles FILE)")
        session.check(draw(job.entries[0].example), job.entries[0].example)
        revision = session.model.fingerprint()
        identity = {**identity, "model_revision": revision, "generation": session.options.record()}
        with captions_for(target, identity, config.overwrite) as captions:
            _caption(config, job, session, draw, captions, progress)
        facts = {"task": job.task.name, "generation": identity["generation"], "icltool": __version__, "call": call}
        drawn = {"dataset": identity["dataset"], "shots": config.shots, "seed": config.seed}
        head = {
            "model_name": config.description or config.model_name,
            "model_revision": revision,
            "settings": {**facts, **(drawn if job.dataset is not None else {})},
        }
        results = write_captions(target, job.entries, captions.finished, head)
        remarks += session.notes
    if captions.done:
        remarks.append(f"{captions.done:,} of {len(results):,} images were captioned by an earlier run")
    return _report(config, job, results, target, remarks)


def _report(
    config: CaptionConfig, job: _Job, results: list[dict[str, object]], target: Path, remarks: list[str]
) -> StageReport:
    notes = (*remarks, f"the first {min(SHOWN, len(results))} of {len(results):,} captions")
    rows = tuple(_table_row(entry, row) for entry, row in zip(job.entries, results[:SHOWN], strict=False))
    return StageReport(f"{job.name} ({job.task.name}), {config.model_name}", rows, target, notes)


def _makers(config: CaptionConfig) -> MadeBy:
    return makers([("models", config.model)], {"models": config.model_path}).record()


def _job(config: CaptionConfig) -> _Job:
    """What is captioned, after all checks that need no model."""
    if config.samples is not None and config.input is None:
        if config.images is not None:
            raise ConfigError("--images is for the images of --input, and samples have their own", "leave --images out")
        return _sampled(config, config.samples)
    if config.input is None or config.samples is not None:
        raise ConfigError("give either --input FILE or --samples N", "see `icltool caption --help`")
    entries = read_entries(config.input, config.images)
    task = _writing(named_task(config.task or task_of_entries(entries, config.input)))
    check_fields(entries, task, config.input)
    dataset = _dataset(config, task.name) if config.shots else None
    return _Job(config.input.name, config.input, entries, task, dataset)


def _sampled(config: CaptionConfig, count: int) -> _Job:
    dataset = _dataset(config, config.task)
    queries = dataset.split("validation")
    examples = queries.rows(random_rows(len(queries), count, config.seed, "caption.samples"))
    entries = [entry_of(number, example) for number, example in enumerate(examples, 1)]
    for entry in entries:
        if entry.example.image:
            check_image(entry.example.image)
    remarks = (
        (f"--samples {count:,}: {dataset.name} has only {len(queries):,} validation examples",)
        if count > len(queries)
        else ()
    )
    name = f"{len(entries)} samples of {dataset.name}"
    return _Job(name, queries.folder, entries, _writing(task_of(dataset)), dataset, remarks)


def _dataset(config: CaptionConfig, task: str | None) -> PreparedDataset:
    workspace = Workspace(config.workspace)
    return open_dataset(workspace.dataset_folder(*workspace.choose_dataset(config.dataset, task)))


def _writing(task: Task) -> Task:
    if task.ranked:
        raise ConfigError(
            f"--task {task.name} chooses from a list of answers and writes none",
            "use `icltool evaluate`, or another --task",
        )
    return task


def _check_styles(job: _Job, known: Sequence[str]) -> None:
    """DataError for the first unknown style; without a list of styles, all pass."""
    if not known:
        return
    try:
        check_styles(((f"{job.source}, entry {e.number}", e.example.style) for e in job.entries), known)
    except DataError as error:
        raise DataError(error.message, f"{error.hint}; --any-style accepts it") from None


def _identity(config: CaptionConfig, job: _Job) -> dict[str, object]:
    """All that decides the captions except the weights of the model, JSON values."""
    dataset = job.dataset
    return {
        "options": {k: v for k, v in config.identity().items() if k not in ("task", "dataset")},
        "input": digest_of(job.entries),
        "task": job.task.name,
        "dataset": dataset.name if dataset is not None else "",
        "dataset_fingerprint": dataset.fingerprint if dataset is not None else "",
    }


def _target(config: CaptionConfig, job: _Job, identity: dict[str, object]) -> Path:
    if config.output is not None:
        return config.output
    source = config.input.stem if config.input is not None else f"{identity['dataset']}-{job.task.name}-samples"
    name = config.model_name.replace("/", "--")
    path, earlier = (
        config.workspace / "captions" / f"{source}-{model}-{digest(identity)}.json" for model in (name, config.model)
    )
    return earlier_or(path, earlier)


class _NoDemonstrations:
    def __call__(self, query: Example) -> tuple[Example, ...]:
        return ()


def _drawing(config: CaptionConfig, job: _Job) -> RandomDemonstrations | _NoDemonstrations:
    if not config.shots or job.dataset is None:
        return _NoDemonstrations()
    guard, index = guard_kinds(None, job.task), job.dataset.split("train")
    return RandomDemonstrations(index, config.shots, config.seed, config.samples is not None, guard)


def _caption(
    config: CaptionConfig,
    job: _Job,
    session: AnswerSession,
    draw: RandomDemonstrations | _NoDemonstrations,
    captions: Captions,
    progress: Progress,
) -> None:
    """Captions the unfinished entries in batches; each batch is stored before the next begins."""
    entries, done = job.entries, captions.done
    size = CHUNK_OF_AUTO if config.batch_size == "auto" else config.batch_size
    session.expect(_needed(entries[done:], draw))
    with progress.task(f"captioning {job.name}", len(entries), "images", done=done) as ticker:
        for low in range(done, len(entries), size):
            part = entries[low : low + size]
            chosen = [draw(entry.example) for entry in part]
            try:
                answers = session.answers([(e.example, icds) for e, icds in zip(part, chosen, strict=True)])
            except DataError as error:
                raise _located(error, part, job.source) from error
            captions.add(
                [
                    {"caption": answer, **({"icd_ids": [icd.id for icd in icds]} if config.shots else {})}
                    for (_, _, answer), icds in zip(answers, chosen, strict=True)
                ]
            )
            ticker.advance(len(part))


def _needed(entries: Sequence[Entry], draw: RandomDemonstrations | _NoDemonstrations) -> Iterator[Example]:
    for entry in entries:
        yield from draw(entry.example)
        yield entry.example


def _located(error: DataError, part: Sequence[Entry], source: Path) -> DataError:
    """The error with the entry whose image it names."""
    for entry in part:
        if image_file(entry.example.image) in error.message:
            hint = f"{error.hint}; then rerun the command to resume" if error.hint else None
            return DataError(f"{source}, entry {entry.number}: {error.message}", hint)
    return error


def _table_row(entry: Entry, row: dict[str, object]) -> dict[str, object]:
    """A row of the table."""
    question = entry.example.question
    return {
        "image": Path(str(row["image"])).name,
        **({"style": entry.example.style} if entry.example.style else {}),
        **({"question": question} if question else {}),
        "caption": row["caption"],
        **({"reference": row["reference"]} if "reference" in row else {}),
    }
