"""Captions images that a file lists, or random evaluation examples.

Reads: the JSON file of --input and its images; datasets/<name>/<task>/ for samples, demonstrations and styles
Writes: captions/, or where --output says; `.NAME.journal` beside it until all is finished
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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
    asked_by,
    check_fields,
    check_image,
    digest_of,
    entry_of,
    read_entries,
)
from icltool.commands.caption.options import CaptionConfig
from icltool.commands.caption.styles import check_styles, prepared_styles, styles_in, styles_of_model
from icltool.config.identity import makers
from icltool.config.tasks import named_task, task_of
from icltool.contracts import Example, Progress, StageReport, Task, image_file
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import load_registry
from icltool.releases import __version__
from icltool.store.arrays import guard_kinds
from icltool.store.artefact import digest
from icltool.store.makers import MadeBy
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset

#: Images between two entries of the journal, where the batch size is "auto".
CHUNK_OF_AUTO = 64
#: Results that are shown.
SHOWN = 5


@dataclass(frozen=True)
class _Asked:
    """What is captioned: `name` for messages and files, the entries, their task, and the data set (None: none is needed)."""

    name: str
    source: Path
    entries: list[Entry]
    task: Task
    dataset: PreparedDataset | None
    remarks: tuple[str, ...] = ()


def run(config: CaptionConfig, progress: Progress) -> StageReport:
    """Captions everything, or goes on where the same call was interrupted. The file's `model_revision` is the model's
    fingerprint, a hash of its weights, precision and prompt format.

    All that can be checked without the model is checked before it is loaded. Raises DataError for the input file, its
    images and styles, StoreError where a data set is missing or the output cannot be written, ConfigError for a task that
    the model does not know, and what loading raises.
    """
    load_registry().get("models", config.model)
    asked = _asked(config)
    styled = "style" in asked.task.fields and config.samples is None and not config.any_style
    listed = styles_in(config.styles) if config.styles is not None else []
    if styled and listed:
        _check_styles(asked, listed)
    identity = _identity(config, asked)
    target = _target(config, asked, identity)
    call = {"digest": digest(identity), **_makers(config)}
    if not config.overwrite and (finished := finished_captions(target, call)) is not None:
        return _report(config, asked, finished, target, ["up to date: the same call captioned everything before"])
    check_target(target, config.overwrite, (config.input, config.styles))
    draw = _drawing(config, asked)
    draw(asked.entries[0].example)  # too few demonstrations show before the model is loaded
    remarks = list(asked.remarks)
    with AnswerSession(config, asked.task, progress) as asker:
        if styled and not listed:
            listed = styles_of_model(asker.model) or prepared_styles(config.workspace, config.dataset)
            _check_styles(asked, listed)
            if not listed:
                remarks.append("styles were not checked: there is no list of them (--styles FILE names one)")
        asker.check(draw(asked.entries[0].example), asked.entries[0].example)
        revision = asker.model.fingerprint()
        identity = {**identity, "model_revision": revision, "generation": asdict(asker.options)}
        with captions_for(target, identity, config.overwrite) as captions:
            _caption(config, asked, asker, draw, captions, progress)
        made = {"task": asked.task.name, "generation": identity["generation"], "icltool": __version__, "call": call}
        drawn = {"dataset": identity["dataset"], "shots": config.shots, "seed": config.seed}
        head = {
            "model_name": config.description or config.model,
            "model_revision": revision,
            "settings": {**made, **(drawn if asked.dataset is not None else {})},
        }
        results = write_captions(target, asked.entries, captions.finished, head)
        remarks += asker.notes
    if captions.done:
        remarks.append(f"{captions.done} of {len(results)} were captioned before")
    return _report(config, asked, results, target, remarks)


def _report(
    config: CaptionConfig, asked: _Asked, results: list[dict[str, object]], target: Path, remarks: list[str]
) -> StageReport:
    told = (*remarks, f"{min(SHOWN, len(results))} of {len(results)} are shown")
    shown = tuple(_shown(entry, row) for entry, row in zip(asked.entries, results[:SHOWN], strict=False))
    return StageReport(f"{asked.name} ({asked.task.name}), {config.model}", shown, target, told)


def _makers(config: CaptionConfig) -> MadeBy:
    return makers([("models", config.model)], {"models": config.model_path}).told()


def _asked(config: CaptionConfig) -> _Asked:
    """What is captioned, checked as far as it can be without the model."""
    if config.samples is not None and config.input is None:
        if config.images is not None:
            raise ConfigError("--images says where the images of --input lie", "leave it out: samples have theirs")
        return _sampled(config, config.samples)
    if config.input is None or config.samples is not None:
        raise ConfigError("what is to be captioned?", "give either --input FILE or --samples N")
    entries = read_entries(config.input, config.images)
    task = _writing(named_task(config.task or asked_by(entries, config.input)))
    check_fields(entries, task, config.input)
    dataset = _dataset(config, task.name) if config.shots else None
    return _Asked(config.input.name, config.input, entries, task, dataset)


def _sampled(config: CaptionConfig, count: int) -> _Asked:
    dataset = _dataset(config, config.task)
    queries = dataset.split("validation")
    examples = queries.rows(random_rows(len(queries), count, config.seed, "caption.samples"))
    entries = [entry_of(number, example) for number, example in enumerate(examples, 1)]
    for entry in entries:
        if entry.example.image:
            check_image(entry.example.image)
    remarks = (f"{dataset.name} has {len(queries)} evaluation examples only",) if count > len(queries) else ()
    name = f"{len(entries)} samples of {dataset.name}"
    return _Asked(name, queries.folder, entries, _writing(task_of(dataset)), dataset, remarks)


def _dataset(config: CaptionConfig, task: str | None) -> PreparedDataset:
    workspace = Workspace(config.workspace)
    return open_dataset(workspace.dataset_folder(*workspace.choose_dataset(config.dataset, task)))


def _writing(task: Task) -> Task:
    if task.ranked:
        raise ConfigError(
            f"task {task.name} chooses from a list, and nothing is written", "use `icltool evaluate`, or another --task"
        )
    return task


def _check_styles(asked: _Asked, known: Sequence[str]) -> None:
    """DataError for the first style that is not known; where nothing is known, all pass."""
    if not known:
        return
    try:
        check_styles(((f"{asked.source}, entry {e.number}", e.example.style) for e in asked.entries), known)
    except DataError as error:
        raise DataError(error.message, f"{error.hint}; --any-style lets it pass") from None


def _identity(config: CaptionConfig, asked: _Asked) -> dict[str, object]:
    """All that decides the captions but the model's weights, JSON values."""
    dataset = asked.dataset
    return {
        "options": {k: v for k, v in config.identity().items() if k not in ("task", "dataset")},
        "input": digest_of(asked.entries),
        "task": asked.task.name,
        "dataset": dataset.name if dataset is not None else "",
        "dataset_fingerprint": dataset.fingerprint if dataset is not None else "",
    }


def _target(config: CaptionConfig, asked: _Asked, identity: dict[str, object]) -> Path:
    if config.output is not None:
        return config.output
    source = config.input.stem if config.input is not None else f"{identity['dataset']}-{asked.task.name}-samples"
    return config.workspace / "captions" / f"{source}-{config.model}-{digest(identity)}.json"


class _NoDemonstrations:
    def __call__(self, query: Example) -> tuple[Example, ...]:
        return ()


def _drawing(config: CaptionConfig, asked: _Asked) -> RandomDemonstrations | _NoDemonstrations:
    if not config.shots or asked.dataset is None:
        return _NoDemonstrations()
    guard, index = guard_kinds(None, asked.task), asked.dataset.split("train")
    return RandomDemonstrations(index, config.shots, config.seed, config.samples is not None, guard)


def _caption(
    config: CaptionConfig,
    asked: _Asked,
    asker: AnswerSession,
    draw: RandomDemonstrations | _NoDemonstrations,
    captions: Captions,
    progress: Progress,
) -> None:
    """Captions what is not finished, a batch after the other; each is in the journal before the next begins."""
    entries, done = asked.entries, captions.done
    size = CHUNK_OF_AUTO if config.batch_size == "auto" else config.batch_size
    asker.expect(_needed(entries[done:], draw))
    with progress.task(f"captioning {asked.name}", len(entries), "images", done=done) as ticker:
        for low in range(done, len(entries), size):
            part = entries[low : low + size]
            chosen = [draw(entry.example) for entry in part]
            try:
                found = asker.answers([(e.example, icds) for e, icds in zip(part, chosen, strict=True)])
            except DataError as error:
                raise _located(error, part, asked.source) from error
            captions.add(
                [
                    {"caption": answer, **({"icd_ids": [icd.id for icd in icds]} if config.shots else {})}
                    for (_, _, answer), icds in zip(found, chosen, strict=True)
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
            hint = f"{error.hint}; the same command goes on from there" if error.hint else None
            return DataError(f"{source}, entry {entry.number}: {error.message}", hint)
    return error


def _shown(entry: Entry, row: dict[str, object]) -> dict[str, object]:
    """A row of the table."""
    asked = entry.example.question or None
    return {
        "image": Path(str(row["image"])).name,
        **({"style": entry.example.style} if entry.example.style else {}),
        **({"asked": asked} if asked else {}),
        "caption": row["caption"],
        **({"reference": row["reference"]} if "reference" in row else {}),
    }
