"""The method `finetuned`: the model of a call, answering with the weights that a training of it left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.specs import method_names
from icltool.contracts.json import Json
from icltool.contracts.retriever import ReadsCheckpoint
from icltool.errors import ConfigError, StoreError
from icltool.plugin.manager import load_registry
from icltool.store.atomic import read_json
from icltool.store.workspace import TRAINED

if TYPE_CHECKING:
    from icltool.components.models.shared.fine_tuned import FineTuned

#: The learner whose checkpoints are read, and those of a folder, the one that is meant first.
LEARNER = "captioner"
CHOICES = ("best", "last")
_OPTIONS = ("folder", "checkpoint", "file")


def weights_of(inputs: Inputs, options: Mapping[str, object]) -> Path:
    """The file of fine-tuned weights: the one of the options `file`, or `folder` and `checkpoint`, of --checkpoint, or of the
    newest finished training of the call's model on data set and task.

    StoreError where there is none, ConfigError for an unknown option, or fine-tuned weights of another model.
    """
    for key in options:
        if key not in _OPTIONS:
            raise ConfigError(f"method finetuned has no option {key!r}", f"known: {', '.join(_OPTIONS)}")
    config = inputs.config
    if config.model_path is not None and _fine_tuned_path(Path(config.model_path)):
        raise ConfigError(
            f"{config.model_path} holds fine-tuned weights already: every method would use them",
            "--method zero-shot evaluates them; for --method finetuned name the model they were made from by --model",
        )
    if "file" in options:
        if others := sorted(set(options) - {"file"}):
            raise ConfigError(
                f"finetuned.file names the weights, and so does finetuned.{others[0]}", "leave one of them out"
            )
        return _checked(inputs, Path(str(options["file"])))
    named = options.get("folder") or _of_captioner(inputs)
    folder = Path(str(named)) if named else _newest(inputs)
    choice = str(options.get("checkpoint", CHOICES[0]))
    file = folder / f"{choice}.safetensors"
    if not file.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise StoreError(f"{file} does not exist; checkpoints there: {there}", "choose one: finetuned.checkpoint=last")
    return _checked(inputs, file)


def read(file: Path) -> FineTuned:
    """The file's header."""
    from icltool.components.models.shared.fine_tuned import read_fine_tuned

    return read_fine_tuned(file)


def remarks(inputs: Inputs, label: str, weights: FineTuned, chosen: bool = True) -> list[str]:
    """Which file it is, out of how many where none was `chosen`, whether it was made on this data set, and from the weights
    that the call names."""
    about, dataset, path = weights.about, inputs.dataset, inputs.config.model_path
    lines = [f"{label}: {weights.file}"]
    if not chosen and (count := len(_fitting(inputs))) > 1:
        lines[0] += f", the newest of {count} that fit (--checkpoint names another)"
    if path is not None and weights.base and Path(weights.base).resolve() != Path(path).resolve():
        lines.append(
            f"{label} began with the weights in {weights.base}, and the other methods answer with those in {path}"
        )
    if about.get("dataset") not in (None, dataset.name) or about.get("task") not in (None, inputs.task.name):
        lines.append(
            f"{label} was trained on {about.get('dataset')} ({about.get('task')}), and this is {dataset.name} "
            f"({inputs.task.name})"
        )
    elif about.get("dataset_fingerprint") not in (None, dataset.fingerprint):
        lines.append(f"{label} was trained on another version of {dataset.name} ({inputs.task.name})")
    return lines


def _checked(inputs: Inputs, file: Path) -> Path:
    if not file.is_file():
        raise StoreError(
            f"{file} is not a file" if file.exists() else f"{file} does not exist",
            "finetuned.file names a file, finetuned.folder a checkpoint folder of "
            f"`icltool train {LEARNER} --model {inputs.config.model}`",
        )
    weights = read(file)
    if weights.model != inputs.config.model:
        raise ConfigError(
            f"{file} is a fine-tuned {weights.model}, and this call's model is {inputs.config.model}",
            f"add --model {weights.model}, or name other weights: --checkpoint FOLDER",
        )
    return file


def _newest(inputs: Inputs) -> Path:
    if fitting := _fitting(inputs):
        return fitting[0]
    name, task, workspace, model = inputs.dataset.name, inputs.task.name, inputs.workspace, inputs.config.model
    files = [f / f"{CHOICES[0]}.safetensors" for f in workspace.checkpoints_of(LEARNER, name, task)]
    unfinished = any(file.is_file() and read(file).model == model for file in files)
    raise StoreError(
        f"{'the training is unfinished' if unfinished else f'no fine-tuned {model}'} for {name} ({task}) in "
        f"{workspace.checkpoints}",
        f"run `icltool train {LEARNER} --model {model} --dataset {name} --task {task}`",
    )


def _fitting(inputs: Inputs) -> list[Path]:
    """Folders of finished trainings of the call's model on data set and task, the newest first; those of the same version of
    the data set where there are any."""
    folders = inputs.workspace.checkpoints_of(LEARNER, inputs.dataset.name, inputs.task.name)
    folders = [f for f in folders if (f / f"{CHOICES[0]}.safetensors").is_file()]
    fitting = [folder for folder in folders if trained_as(folder).get("model") == inputs.config.model]
    same = [f for f in fitting if trained_as(f).get("dataset_fingerprint") == inputs.dataset.fingerprint]
    return same or fitting


def _of_captioner(inputs: Inputs) -> Path | None:
    """The folder of --checkpoint; None without one, and where it is for a selector of the call. StoreError where no method
    of the call reads it."""
    folder = inputs.config.checkpoint
    if folder is None:
        return None
    if not folder.is_dir():
        raise StoreError(f"{folder} does not exist", "give a checkpoint folder as --checkpoint")
    made_by = trained_as(folder).get("learner")
    if made_by == LEARNER or (folder / f"{CHOICES[0]}.safetensors").is_file():
        return folder
    selectors = _selectors(inputs)
    if made_by in selectors or (made_by is None and selectors):
        return None
    problem = f"was trained by {made_by}" if made_by else "holds no finished training"
    raise StoreError(
        f"{folder} {problem}, finetuned reads checkpoints of {LEARNER}",
        f"give a folder of `icltool train {LEARNER}`, or leave --checkpoint out for the newest",
    )


def _selectors(inputs: Inputs) -> set[str]:
    """The learners whose checkpoints other methods of the call read."""
    registry = load_registry()
    retrievers = set(registry.names("retrievers"))
    named = [name for name in method_names(inputs.config.methods) if name in retrievers]
    classes = (registry.load("retrievers", name) for name in named)
    return {cls.learner for cls in classes if isinstance(cls, ReadsCheckpoint)}


def _fine_tuned_path(path: Path) -> bool:
    from icltool.components.models.shared.fine_tuned import fine_tuned_file

    return fine_tuned_file(path) is not None


def trained_as(folder: Path) -> Mapping[str, Json]:
    """The identity of the finished training in a checkpoint folder; {} where there is none."""
    try:
        identity = read_json(folder / TRAINED)["identity"]
    except (StoreError, KeyError, TypeError):
        return {}
    return identity if isinstance(identity, Mapping) else {}
