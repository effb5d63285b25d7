"""Trains a selector on generated sequences, an intervention on examples and the LVLM, or a captioner's own weights on
examples.

Reads: datasets/<name>/<task>/; for selectors sequences/*.h5 and embeddings/<name>-<task>-train-<encoder>.h5; images, if an
    encoder or the LVLM reads them; evaluations/*/ of train queries, for learners of evaluations
Writes: checkpoints/<learner>-<name>-<task>-<digest>/
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeGuard, cast

from icltool.commands.train.evaluations import EvaluationJob
from icltool.commands.train.fine_tuning import FineTuningJob
from icltool.commands.train.interventions import InterventionJob
from icltool.commands.train.options import TrainConfig
from icltool.commands.train.sequences import SequenceJob
from icltool.contracts import FineTuningLearner, InterventionLearner, Learner, Progress, StageReport, TrainingOutcome
from icltool.contracts.learner import reads_evaluations
from icltool.errors import ConfigError, StoreError
from icltool.execution.processes import is_leader
from icltool.plugin.manager import component
from icltool.store.artefact import canonical_json, digest
from icltool.store.atomic import read_json, remove_temporary_files, write_json, writing
from icltool.store.locking import locked
from icltool.store.makers import Makers
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace, earlier_or

if TYPE_CHECKING:
    from icltool.commands.train.job import Job
    from icltool.store.records import PreparedDataset

#: Written last: a folder with this file holds a finished training.
RECORD_FILE = "training.json"
#: The makers of an unfinished training: weights and versions of plugins.
BEGUN_FILE = "begun.json"
_SCHEMA = "icltool.training"


class TrainingRecord(TypedDict):
    """The content of RECORD_FILE; `checkpoints` maps the name of a choice of weights ("last") to that of its file."""

    schema: str
    schema_version: int
    identity: dict[str, object]
    provenance: dict[str, object]
    checkpoints: dict[str, str]
    history: list[dict[str, float]]


def run(config: TrainConfig, progress: Progress) -> StageReport:
    """Trains, unless the same training is already finished.

    Raises StoreError if data set, sequences or embeddings are missing, unfinished or do not belong together, or the folder
    cannot be written; ConfigError and PluginError for wrong options, DataError for data that cannot be learned from,
    KeyboardInterrupt on Ctrl-C: the folder then holds what the learner had written.
    """
    options = dict(config.options)
    if config.trainer:
        options["trainer"] = {**options.get("trainer", {}), **config.trainer}
    learner: object = component("learners", config.learner, **options)
    workspace = Workspace(config.workspace)
    dataset = open_dataset(workspace.dataset_folder(*workspace.choose_dataset(config.dataset, config.task)))
    dataset.check_images()
    job = _job(config, workspace, dataset, learner, options)
    if config.model_path is not None:
        config.check_model(progress)
    name, task = dataset.name, dataset.task
    folder = workspace.checkpoint_folder(config.learner, name, task, digest(job.identity), job.variant)
    for earlier in (config.model, ""):  # earlier releases named the adapter, or left the variants of selectors out
        folder = earlier_or(
            folder, workspace.checkpoint_folder(config.learner, name, task, digest(job.identity), earlier)
        )
    title = f"{config.learner}{f' ({job.variant})' if job.variant else ''}, trained on {name} ({task})"
    use = [job.usage.format(folder=folder)] if job.usage else []
    new = not folder.exists()
    with _lock(folder):
        made_by = Makers.of(job.provenance())
        _remove_left(folder)
        record = None if config.overwrite else _finished(folder, job.identity)
        if record is not None:
            Makers.of(record["provenance"]).check(folder / RECORD_FILE, made_by)
            (folder / BEGUN_FILE).unlink(missing_ok=True)
            return _report(
                title, folder, record, ["up to date: already trained on the same data with the same options", *use]
            )
        with writing(folder):
            (folder / RECORD_FILE).unlink(missing_ok=True)
            if config.overwrite and is_leader():
                for left in (*folder.glob("resume*"), *folder.glob(".resume*")):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            _begin(folder, made_by, config.overwrite)
            outcome = _trained(job, folder, config.seed, progress, new)
        _leave_group()
        record = TrainingRecord(
            schema=_SCHEMA,
            schema_version=1,
            identity=job.identity,
            provenance=job.provenance(),
            checkpoints={key: path.name for key, path in outcome.checkpoints.items()},
            history=[dict(entry) for entry in outcome.history],
        )
        if is_leader():
            write_json(folder / RECORD_FILE, record)
            (folder / BEGUN_FILE).unlink(missing_ok=True)
    return _report(title, folder, record, use)


def _trained(job: Job, folder: Path, seed: int, progress: Progress, new: bool) -> TrainingOutcome:
    """The outcome of the training. If it is refused, a `new` folder without trained weights is removed."""
    try:
        return job.train(folder, seed, progress)
    except KeyboardInterrupt:
        if any(folder.glob("*.safetensors")):
            progress.say(f"interrupted; finished weights are in {folder}")
        raise
    except ConfigError:
        if new and is_leader() and not any((*folder.glob("*.safetensors"), *folder.glob("*resume*"))):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _job(
    config: TrainConfig, workspace: Workspace, dataset: PreparedDataset, learner: object, options: Mapping[str, object]
) -> Job:
    """The kind of training that this learner needs."""
    if reads_evaluations(learner):
        return EvaluationJob(config, workspace, dataset, learner, options)
    if config.evaluations:
        raise ConfigError(f"--evaluations: {config.learner} does not learn from evaluations", "leave --evaluations out")
    if isinstance(learner, FineTuningLearner):
        return FineTuningJob(config, dataset, learner, options)
    if isinstance(learner, InterventionLearner):
        return InterventionJob(config, dataset, learner, options)
    return SequenceJob(config, workspace, dataset, cast(Learner, learner), options)


def _finished(folder: Path, identity: Mapping[str, object]) -> TrainingRecord | None:
    """The record of the same training if it is finished and its checkpoints exist, else None."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except StoreError:  # cut off: train again
        return None
    if not _is_record(record) or canonical_json(record["identity"]) != canonical_json(dict(identity)):
        return None
    return record if all((folder / name).is_file() for name in record["checkpoints"].values()) else None


def _is_record(record: object) -> TypeGuard[TrainingRecord]:
    """Whether history, checkpoints and provenance have the types that a training writes."""
    if not isinstance(record, dict) or "identity" not in record:
        return False
    record.setdefault("provenance", {})
    history, checkpoints = record.get("history"), record.get("checkpoints")
    return (
        isinstance(record["provenance"], dict)
        and isinstance(checkpoints, dict)
        and all(isinstance(name, str) for name in checkpoints.values())
        and isinstance(history, list)
        and all(isinstance(e, dict) and all(isinstance(v, int | float) for v in e.values()) for e in history)
    )


def _remove_left(folder: Path) -> None:
    """Removes temporary files of a killed training. The caller holds the lock."""
    if is_leader():
        with writing(folder):
            for place in (folder, folder / "logs"):
                remove_temporary_files(place)


def _begin(folder: Path, made_by: Makers, overwrite: bool) -> None:
    """Records the makers of the training. StoreError if it is resumed with other makers."""
    path = folder / BEGUN_FILE
    begun: object = {}
    with contextlib.suppress(StoreError):  # a record that was cut off counts as none
        begun = read_json(path) if path.is_file() and not overwrite else {}
    Makers.of(begun).check(folder, made_by)
    if is_leader():
        write_json(path, made_by.record())


def _leave_group() -> None:
    """Ends gloo's process group after a training in several processes, whose threads would otherwise outlive the interpreter;
    Lightning does so for NCCL only."""
    import torch.distributed as group

    if group.is_available() and group.is_initialized() and group.get_backend() == "gloo":
        group.destroy_process_group()


def _report(title: str, folder: Path, record: TrainingRecord, remarks: Sequence[str]) -> StageReport:
    """A table row per checkpoint."""
    history = record["history"]
    rows = []
    for name in record["checkpoints"]:
        figure = {"min_vl": "val_loss", "min_tl": "train_loss"}.get(name)
        entry: dict[str, float] = {}
        if history:  # empty in the other processes of a distributed training
            entry = min(history, key=itemgetter(figure)) if figure else history[-1]
        rows.append({"checkpoint": name, **{key: round(value, 6) for key, value in entry.items()}})
    source = record["provenance"].get("sequences")
    lowest = {"min_vl": "lowest validation loss", "min_tl": "lowest training loss"}
    notes = [f"{name}: the weights with the {loss}" for name, loss in lowest.items() if name in record["checkpoints"]]
    notes += [f"sequences: {source}"] if source else []
    return StageReport(title, tuple(rows), folder, (*remarks, *notes))


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keeps a second run from training into the same folder; the other processes of a distributed training pass."""
    if not is_leader():
        yield
        return
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        yield
