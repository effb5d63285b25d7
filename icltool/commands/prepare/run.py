"""Prepares a data set for the other commands.

Reads: the official files of a data set, through its reader.
Writes: datasets/NAME/TASK/ (Arrow records, dataset.json); datasets/NAME/source/ for a data set that makes its own files.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from icltool.commands.prepare.options import PrepareConfig
from icltool.components.tasks import BUILT_IN
from icltool.config.datasets import namespace_of
from icltool.config.tasks import named_task
from icltool.contracts import (
    DatasetReader,
    DefinesTasks,
    MakesFiles,
    NamedAfterFiles,
    NamesMetrics,
    PreparedSplit,
    Progress,
    ReadReport,
    ReadsDeclaredTasks,
    SupportsVerification,
    Task,
    TasksDependOnFiles,
    read_task,
)
from icltool.contracts.json import Json
from icltool.contracts.options import defaults_of
from icltool.contracts.randomness import drawn_examples
from icltool.errors import ConfigError, DataError, OtherTaskError, StoreError
from icltool.plugin.manager import component, load_registry
from icltool.store.atomic import remove_folder_leftovers, writing
from icltool.store.locking import locked
from icltool.store.prepared import MANIFEST, Inputs, Manifest, Preparation
from icltool.store.records import open_dataset, write_dataset
from icltool.store.workspace import Workspace, prepare_command


@dataclass(frozen=True)
class PrepareReport:
    """The prepared data sets, one per task, with their states, and remarks."""

    title: str
    path: Path | None
    states: dict[str, str] = field(default_factory=dict)
    prepared: dict[str, Manifest] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, object]]:
        """One row per task and split; with the number of groups of near-duplicates if there are any."""
        splits = [
            (task, split, entry, manifest["fingerprint"])
            for task, manifest in self.prepared.items()
            for split, entry in manifest["splits"].items()
        ]
        grouped = any(entry.get("groups") for _, _, entry, _ in splits)
        return [
            {
                "task": task,
                "split": split,
                "examples": entry["examples"],
                "images": entry.get("images"),
                **({"image groups": entry.get("groups")} if grouped else {}),
                "fingerprint": fingerprint[:12],
                "state": self.states[task],
            }
            for task, split, entry, fingerprint in splits
        ]

    def lines(self) -> list[str]:
        """Remarks."""
        return list(self.remarks)


def run(config: PrepareConfig, progress: Progress) -> PrepareReport:
    """Checks all files for all tasks, then writes the tasks that are not up to date."""
    reader: DatasetReader = component("datasets", config.name, **config.options)
    tasks, declared = _tasks(reader, config)
    workspace = Workspace(config.workspace.expanduser().absolute())
    name = reader.name = _name(reader, config)
    if not config.overwrite:
        for task in tasks:
            _check_same(workspace.dataset_folder(name, task), name, config, _options(reader, config))
    root = _root(reader, config, workspace, progress)
    checked, remarks = _checked(reader, root, tasks, config, progress)
    definitions = {task: _definition(reader, task, declared) for task in checked}
    inputs = {task: _inputs(reader, config, root, task, report, definitions[task]) for task, report in checked.items()}
    remarks += [remark for report in checked.values() for remark in report.remarks]
    tasks = tuple(checked)
    states, prepared = {}, {}
    for task in tasks:
        folder = workspace.dataset_folder(name, task)
        manifest, reason = _up_to_date(folder, inputs[task], workspace.root)
        remarks += [reason] if reason else []
        states[task] = "up to date" if manifest else "prepared"
        if manifest:
            _remove_left(folder)
        prepared[task] = manifest or _write(
            reader, root, task, folder, inputs[task], config, progress, definitions[task]
        )
        progress.detail(f"{folder}: {states[task]}")
    remarks += _stale(workspace, name, set(tasks), reader, config.name)
    if all(state == "up to date" for state in states.values()):
        remarks.append(f"up to date: {name} was prepared from the same files")
    path = workspace.datasets / name
    return PrepareReport(f"Data set {name}", path, states, prepared, tuple(dict.fromkeys(remarks)))


def _name(reader: DatasetReader, config: PrepareConfig) -> str:
    """The name of the prepared data set. ConfigError for one that is not a file name."""
    named = config.dataset
    if named is None and isinstance(reader, NamedAfterFiles):
        named = re.sub(r"[^\w.+-]+", "-", reader.named_after(config.root)).strip("-.") or None
    named = reader.name if named is None else named
    if not re.fullmatch(r"[^\W_][\w.+-]*", named):
        raise ConfigError(f"--name {named!r} is not a valid name", "use letters, digits, '.', '_', '+' and '-'")
    return named


def _remove_left(folder: Path) -> None:
    """Removes leftovers of killed runs beside a prepared data set, unless another process is writing it."""
    with contextlib.suppress(StoreError), locked(folder), writing(folder):
        remove_folder_leftovers(folder, MANIFEST)


def _check_same(folder: Path, name: str, config: PrepareConfig, options: dict[str, Json]) -> None:
    """StoreError if the data set in `folder` was made by another reader, with different options, or from another folder that
    still exists."""
    try:
        provenance = open_dataset(folder).manifest["provenance"]
        before, reader = provenance["inputs"], provenance["configuration"]["name"]
        options_before, root = _limited_options(before["options"], before.get("limit")), before["root"]
        options = _limited_options(options, config.limit)
    except (StoreError, KeyError, TypeError):  # none, or one that cannot be read and is written again
        return
    difference = ""
    if reader != config.name:
        difference = f"by the reader {reader}"
    elif options_before != options:
        known = [*options, *(key for key in options_before if key not in options)]
        key = next(key for key in known if options_before.get(key) != options.get(key))
        difference = f"with different options ({key}: {_text(options_before.get(key))}, now {_text(options.get(key))})"
    elif config.root is not None and root is not None and Path(root).exists():
        here = config.root.expanduser().absolute()
        difference = f"from {root}" if here.resolve() != Path(root).resolve() else ""
    if difference:
        raise StoreError(
            f"{name} ({folder.name}) is already prepared, {difference}",
            "keep both with --name NAME, or replace it with --overwrite",
        )


def _text(value: Json) -> str:
    return "not set" if value is None else str(value)


def _limited_options(options: dict[str, Json], limit: int | None) -> dict[str, Json]:
    return {**options, "--limit": limit} if limit is not None else options


def _tasks(reader: DatasetReader, config: PrepareConfig) -> tuple[tuple[str, ...], Task | None]:
    """The tasks, and the definition of one that is not built in, which is stored with the data set."""
    task = _from_file(config) if config.task_file is not None else None
    if task is None and config.task == "all":
        return tuple(reader.tasks), None
    if task is None and config.task in reader.tasks:
        return (config.task,), None
    task = task or named_task(config.task)
    if not isinstance(reader, ReadsDeclaredTasks):
        raise ConfigError(
            f"data set {config.name!r} has no task {task.name!r}", f"its tasks: {', '.join(reader.tasks)}"
        )
    reader.declare(task)
    return (task.name,), None if task.name in BUILT_IN else task


def _definition(reader: DatasetReader, task: str, declared: Task | None) -> Task | None:
    """The definition that is kept with the data set; None for that of a task that is built in."""
    own = reader.definition(task) if isinstance(reader, DefinesTasks) else None
    return own or declared


def _from_file(config: PrepareConfig) -> Task:
    assert config.task_file is not None
    if config.task != "all":
        raise ConfigError("--task and --task-file both name a task", "leave one of them out")
    task = read_task(config.task_file)
    if task.name in load_registry().names("tasks"):
        raise ConfigError(
            f"{config.task_file}: a task {task.name!r} already exists (`icltool plugins show tasks {task.name}`)",
            "give this one another name",
        )
    return task


def _root(reader: DatasetReader, config: PrepareConfig, workspace: Workspace, progress: Progress) -> Path | None:
    if not isinstance(reader, MakesFiles):
        return config.root
    if config.root is not None:
        raise ConfigError(
            f"--root: data set {config.name!r} makes its own files",
            "leave --root out, or name the data set of these files",
        )
    return reader.make(workspace.root, progress)


def _checked(
    reader: DatasetReader, root: Path | None, tasks: tuple[str, ...], config: PrepareConfig, progress: Progress
) -> tuple[dict[str, ReadReport], list[str]]:
    """The report of each task that can be prepared, and remarks on the others."""
    may_miss = len(tasks) > 1 and isinstance(reader, TasksDependOnFiles) and reader.tasks_depend_on_files
    checked: dict[str, ReadReport] = {}
    refused: dict[str, DataError] = {}
    with progress.task(f"checking the files of {config.name}", len(tasks), "tasks") as ticker:
        for task in tasks:
            try:
                checked[task] = _check(reader, root, task, config.verify, progress)
            except DataError as error:
                if not may_miss:
                    raise
                refused[task] = error
            ticker.advance()
    nearer = {task: error for task, error in refused.items() if not isinstance(error, OtherTaskError)}
    if not checked:
        raise next(iter({**nearer, **refused}.values()))
    for task in refused.keys() - nearer.keys():
        progress.detail(f"not prepared for task {task}: {refused[task].message}")
    remarks = [f"not prepared for task {task}: {error.message}" for task, error in nearer.items()]
    if refused:
        remarks.append(f"task{'s' * (len(checked) > 1)}: {', '.join(checked)} (recognised by the columns)")
    return checked, remarks


def _check(reader: DatasetReader, root: Path | None, task: str, verify: bool, progress: Progress) -> ReadReport:
    if verify and isinstance(reader, SupportsVerification):
        return reader.verify(root, task, progress)
    return reader.check(root, task, verify)


def _inputs(
    reader: DatasetReader,
    config: PrepareConfig,
    root: Path | None,
    task: str,
    report: ReadReport,
    declared: Task | None,
) -> Inputs:
    """What decides the content: the reader, its options with defaults, each file's size in bytes and modification time in ns,
    and the metrics that the reader names for the task, if any."""
    registered = load_registry().get("datasets", config.name)
    metrics = reader.metrics.get(task) if isinstance(reader, NamesMetrics) else None
    inputs: Inputs = {
        "reader": f"{registered.distribution} {registered.version}",
        "options": _options(reader, config),
        "root": None if root is None else str(root.expanduser().absolute()),
        "files": _stamps(report.files),
    }
    if metrics:
        inputs["metric"] = metrics if isinstance(metrics, str) else list(metrics)
    if config.limit is not None:
        inputs["limit"] = config.limit
    if declared:
        inputs["task"] = declared.definition()
    return inputs


def _options(reader: DatasetReader, config: PrepareConfig) -> dict[str, Json]:
    """The reader's options, defaults included."""
    return dict(sorted({**_defaults(reader), **config.options}.items()))


def _defaults(reader: DatasetReader) -> dict[str, Json]:
    """The options of the reader whose default is a text or a number."""
    return {name: value for name, value in defaults_of(type(reader)).items() if isinstance(value, str | int | float)}


def _stamps(files: tuple[Path, ...]) -> dict[str, list[int]]:
    stamps = {}
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}", "restore it and run again") from error
        stamps[str(file)] = [status.st_size, status.st_mtime_ns]
    return stamps


def _up_to_date(folder: Path, inputs: Inputs, own: Path) -> tuple[Manifest | None, str]:
    """(manifest of the data set in `folder` if it was made from these inputs and can be read, else None; a remark)."""
    if not folder.exists():
        return None, ""
    try:
        dataset = open_dataset(folder)
        if dataset.manifest.get("provenance", {}).get("inputs") != inputs:
            return None, ""
        if changed := dataset.changed_images(own):
            images = f"{changed:,} image{'s have' if changed > 1 else ' has'}"
            return None, f"{images} changed since it was prepared: it is prepared again, as another version"
    except StoreError as error:
        return None, f"prepared again: {error.message}"
    return dataset.manifest, ""


def _write(
    reader: DatasetReader,
    root: Path | None,
    task: str,
    folder: Path,
    inputs: Inputs,
    config: PrepareConfig,
    progress: Progress,
    declared: Task | None,
) -> Manifest:
    splits = reader.read(root, task, folder.parents[2], progress)
    if config.limit is not None:
        splits = (_limited(split, config.limit) for split in splits)
    provenance: Preparation = {"configuration": {**config.identity(), "task": task}, "inputs": inputs}
    if config.task_file is not None:
        provenance["task_file"] = str(config.task_file.expanduser().absolute())
    default = reader.tasks[0]
    namespace = namespace_of(reader, config.name)
    dataset = write_dataset(
        folder, reader.name, task, default, splits, provenance, progress, config.verify, declared, namespace
    )
    return dataset.manifest


def _limited(split: PreparedSplit, size: int) -> PreparedSplit:
    examples = drawn_examples(f"prepare.limit.{split.name}", split.examples, size)
    return PreparedSplit(split.name, len(examples), iter(examples))


def _stale(workspace: Workspace, name: str, tasks: set[str], reader: DatasetReader, kind: str) -> list[str]:
    """Remarks on other tasks of this data set whose files have changed since they were prepared."""
    remarks = []
    for prepared_name, task in workspace.prepared():
        if prepared_name != name or task in tasks or task not in reader.tasks:
            continue
        try:
            files = open_dataset(workspace.dataset_folder(name, task)).manifest["provenance"]["inputs"]["files"]
            changed = _stamps(tuple(Path(file) for file in files)) != files
        except (StoreError, DataError, KeyError, TypeError, AttributeError):
            changed = True
        if changed:
            remarks.append(
                f"the files of task {task} have changed since it was prepared: run `{prepare_command(kind, name, task)}`"
            )
    return remarks
