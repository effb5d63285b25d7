"""Trains a learner: a selector on generated sequences, what stands in for demonstrations on examples and the LVLM, or a
captioner's own weights on examples.

Reads: datasets/<name>/<task>/; a selector's sequences/*.h5 and embeddings/<name>-<task>-train-<encoder>.h5; the images where
    an encoder or the LVLM reads them; evaluations/*/ of train queries, for learners of evaluations
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
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.commands.train.job import Job
    from icltool.store.records import PreparedDataset

#: Written last, so that a folder with it holds a finished training.
RECORD_FILE = "training.json"
#: What an unfinished training was begun with.
BEGUN_FILE = "begun.json"
_SCHEMA = "icltool.training"


class TrainingRecord(TypedDict):
    """What RECORD_FILE holds of a finished training; `checkpoints` are names of files by those of what they hold."""

    schema: str
    schema_version: int
    identity: dict[str, object]
    provenance: dict[str, object]
    checkpoints: dict[str, str]
    history: list[dict[str, float]]


def run(config: TrainConfig, progress: Progress) -> StageReport:
    """Trains, or finds the same training finished before.

    Raises StoreError where data set, sequences or embeddings are missing, unfinished or do not belong together or the
    folder cannot be written, ConfigError and PluginError for wrong options, DataError for data that cannot be learned
    from, KeyboardInterrupt on Ctrl-C: what the learner had written is then in the folder.
    """
    options = dict(config.options)
    if config.trainer:
        options["trainer"] = {**options.get("trainer", {}), **config.trainer}
    learner: object = component("learners", config.learner, **options)
    workspace = Workspace(config.workspace)
    dataset = open_dataset(workspace.dataset_folder(*workspace.choose_dataset(config.dataset, config.task)))
    dataset.check_images()
    job = _job(config, workspace, dataset, learner, options)
    name, task = dataset.name, dataset.task
    folder = workspace.checkpoint_folder(config.learner, name, task, digest(job.identity), job.variant)
    if not folder.exists():  # names of before did not tell the variants of selectors
        before = workspace.checkpoint_folder(config.learner, name, task, digest(job.identity))
        folder = before if before.exists() else folder
    title = " ".join(filter(None, [config.learner, f"of {job.variant}" if job.variant else "", f"for {name} ({task})"]))
    use = [job.usage.format(folder=folder)] if job.usage else []
    new = not folder.exists()
    with _lock(folder):
        made_by = Makers.of(job.provenance())
        _remove_left(folder)
        record = None if config.overwrite else _finished(folder, job.identity)
        if record is not None:
            Makers.of(record["provenance"]).check(folder / RECORD_FILE, made_by)
            (folder / BEGUN_FILE).unlink(missing_ok=True)
            return _report(title, folder, record, ["up to date: trained before on the same data, same options", *use])
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
    """What the training gives. A `new` folder in which nothing was trained when it is refused is removed."""
    try:
        return job.train(folder, seed, progress)
    except KeyboardInterrupt:
        if any(folder.glob("*.safetensors")):
            progress.say(f"interrupted; what was finished is in {folder}")
        raise
    except ConfigError:
        if new and is_leader() and not any((*folder.glob("*.safetensors"), *folder.glob("*resume*"))):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _job(
    config: TrainConfig, workspace: Workspace, dataset: PreparedDataset, learner: object, options: Mapping[str, object]
) -> Job:
    """The training that this learner asks for."""
    if reads_evaluations(learner):
        return EvaluationJob(config, workspace, dataset, learner, options)
    if config.evaluations:
        raise ConfigError(f"{config.learner} does not learn from evaluations", "leave --evaluations out")
    if isinstance(learner, FineTuningLearner):
        return FineTuningJob(config, dataset, learner, options)
    if isinstance(learner, InterventionLearner):
        return InterventionJob(config, dataset, learner, options)
    return SequenceJob(config, workspace, dataset, cast(Learner, learner), options)


def _finished(folder: Path, identity: Mapping[str, object]) -> TrainingRecord | None:
    """The record of the same training when it is finished and its checkpoints are there, else None."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except StoreError:  # cut: train again
        return None
    if not _is_record(record) or canonical_json(record["identity"]) != canonical_json(dict(identity)):
        return None
    return record if all((folder / name).is_file() for name in record["checkpoints"].values()) else None


def _is_record(record: object) -> TypeGuard[TrainingRecord]:
    """Whether history, checkpoints and provenance are what a training writes."""
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
    """Removes what a killed training was about to give a name. The lock is held."""
    if is_leader():
        with writing(folder):
            for place in (folder, folder / "logs"):
                remove_temporary_files(place)


def _begin(folder: Path, made_by: Makers, overwrite: bool) -> None:
    """Writes down what the training is begun with. StoreError where it goes on, and was begun with something else."""
    path = folder / BEGUN_FILE
    begun: object = {}
    with contextlib.suppress(StoreError):  # a record that is cut tells of nothing
        begun = read_json(path) if path.is_file() and not overwrite else {}
    Makers.of(begun).check(folder, made_by)
    if is_leader():
        write_json(path, made_by.told())


def _leave_group() -> None:
    """Ends gloo's group of a finished training in several processes, whose threads would else outlive the interpreter;
    Lightning does it for NCCL alone."""
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
    return StageReport(title, tuple(rows), folder, (*remarks, *([f"sequences: {source}"] if source else [])))


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
