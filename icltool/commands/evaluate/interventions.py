"""The interventions of a call: which name means what, and which file each method reads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from icltool.commands.evaluate.fine_tuned import trained_as
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.specs import method_names
from icltool.components.interventions.files import WEIGHTS, read_intervention, template_remark
from icltool.config.adapters import fine_tuned_name
from icltool.contracts import Intervention, Model, SupportsDecoderHooks
from icltool.errors import ConfigError, PluginError, StoreError
from icltool.plugin.manager import component, load_registry

RETRIEVERS, INTERVENTIONS = "retrievers", "interventions"


def kind_of(name: str) -> str:
    """The kind of component that a method of this name is.

    PluginError for an unknown name, with a suggestion from both kinds, and for one that both have.
    """
    registry = load_registry()
    kinds = [kind for kind in (RETRIEVERS, INTERVENTIONS) if name in registry.names(kind)]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        owners = (sorted({f.distribution for f in registry.components if (f.kind, f.name) == (k, name)}) for k in kinds)
        first, second = (" and ".join(names) for names in owners)
        raise PluginError(
            f"method {name!r} is a retriever (of {first}) and an intervention (of {second})",
            "uninstall one of them",
        )
    known = sorted({*registry.names(RETRIEVERS), *registry.names(INTERVENTIONS), "finetuned"})
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    start = f"did you mean {close[0]!r}? " if close else ""
    broken = f"; broken plugins: {', '.join(map(str, registry.broken))}" if registry.broken else ""
    raise PluginError(f"unknown method {name!r}", f"{start}known: {', '.join(known)}{broken}")


def vector_files(config: EvaluateConfig) -> dict[str, list[Path]]:
    """The files of --vectors by the method that each belongs to, in their order. StoreError for one that is missing or was
    not written by icltool, ConfigError for one that no method here reads.
    """
    files_of_method: dict[str, list[Path]] = {}
    for source in dict.fromkeys(path.resolve() for path in (*config.vectors, *_as_checkpoint(config))):
        file = file_of(source)
        method = read_intervention(file).method
        if method not in load_registry().names(INTERVENTIONS):
            raise ConfigError(
                f"{file} was made by {method}, which is not an installed method", "install the plugin that made it"
            )
        files_of_method.setdefault(method, []).append(file)
    if files_of_method and "methods" in config.model_fields_set:
        for method, files in files_of_method.items():
            if method not in method_names(config.methods):
                raise ConfigError(
                    f"{files[0]} was made by {method}, which --method does not name",
                    f"add --method {method}, or leave the file out",
                )
    return files_of_method


def _as_checkpoint(config: EvaluateConfig) -> list[Path]:
    """The folder of --checkpoint, where `icltool train` left the file of an intervention in it."""
    folder = config.checkpoint
    if folder is None or not (folder / WEIGHTS).is_file() or (folder / "config.json").is_file():
        return []
    return [] if fine_tuned_name(folder) is not None else [folder]


def file_of(path: Path) -> Path:
    """The file that is meant: the path, or the one in a checkpoint folder. StoreError where the folder has none."""
    if not path.is_dir():
        return path
    if not (path / WEIGHTS).is_file():
        raise StoreError(f"{path} holds no {WEIGHTS}", "give the folder that `icltool train` made, or a file")
    return path / WEIGHTS


def newest_file(inputs: Inputs, method: str) -> Path:
    """The file that the learner of this name left last for data set and task, among those that fit the call best: its model,
    its weights' place, the version of the data set, its prompt format.

    StoreError with the command that makes one where there is none, and for a training that is unfinished.
    """
    name, task, workspace = inputs.dataset.part("train").name, inputs.dataset.task, inputs.workspace
    folders = [f for f in workspace.checkpoints_of(method, name, task) if (f / WEIGHTS).is_file()]
    command = f"`icltool train {method} --dataset {name} --task {task} --model {inputs.config.model}`"
    if not folders:
        raise StoreError(
            f"no {method} file for {name} ({task}) in {workspace.checkpoints}",
            f"run {command}, or give one: --vectors FILE",
        )
    requested = {**inputs.config.identity(), "dataset_fingerprint": inputs.dataset.fingerprint}
    best = max(_fit(folder, requested) for folder in folders)
    folder = next(folder for folder in folders if _fit(folder, requested) == best)
    if not best[0]:
        raise StoreError(
            f"the training in {folder} is unfinished",
            f"run the same {command} to resume, or name it: --vectors {folder}",
        )
    return folder / WEIGHTS


def _fit(folder: Path, requested: Mapping[str, object]) -> tuple[bool, ...]:
    """What of a finished training is as wanted, the most important first; all false for an unfinished one."""
    keys = (
        "model",
        "model_path",
        "dataset_fingerprint",
        "prompt_template",
        "prompt",
        "template_options",
        "prompt_style",
        "quantization",
    )
    identity = trained_as(folder)
    return (bool(identity), *(bool(identity) and identity.get(key) == requested.get(key) for key in keys))


def opened(inputs: Inputs, name: str, label: str, options: Mapping[str, object]) -> Intervention:
    """The intervention of this name with its options, `file` among them.

    ConfigError where it cannot rank choices and the task wants that; what its class raises.
    """
    intervention: Intervention = component(INTERVENTIONS, name, **options)
    if inputs.task.ranked and not intervention.everywhere:
        raise ConfigError(
            f"{label} changes the last token of a prompt alone: it cannot rank the choices of {inputs.task.name}",
            "evaluate it on caption or vqa",
        )
    return intervention


def remarks(inputs: Inputs, label: str, intervention: Intervention) -> list[str]:
    """Which file it is, how many numbers it holds, and what it was made from."""
    about = intervention.about
    task = f" ({about['task']})" if about.get("task") else ""
    source = f"{about.get('dataset') or 'a data set that it does not name'}{task}"
    details = [text for key in ("shots", "seed") if (text := _detail(key, about.get(key)))]
    origin = ", ".join([source, *details]) if about.get("dataset") or task or details else ""
    lines = [
        f"{label}: {intervention.file}, {intervention.parameters:,} numbers"
        + (f", made from {origin}" if origin else "")
    ]
    done, planned = (about.get(part, {}).get(key) for part, key in (("figures", "epoch"), ("options", "epochs")))
    if done is not None and planned is not None and done < planned:
        lines.append(f"{label}: its training is unfinished, {done:.0f} of {planned} epochs")
    here = f"{inputs.dataset.name} ({inputs.dataset.task})"
    ours = {"dataset": inputs.dataset.name, "task": inputs.task.name}
    if any(about.get(key) not in (None, value) for key, value in ours.items()):
        lines.append(f"{label} was made from {source}, and this is {here}")
    elif about.get("dataset_fingerprint") not in (None, inputs.dataset.fingerprint):
        lines.append(f"{label} was made from another version of {here}")
    return lines


def other_template(label: str, intervention: Intervention, model: Model) -> str:
    """A line where the model's prompts have another format than those that the file was made with, else ""."""
    if not isinstance(model, SupportsDecoderHooks):
        return ""
    remark = template_remark(read_intervention(intervention.file), model)
    return f"{label}: {remark}" if remark else ""


def _detail(key: str, value: object) -> str:
    if value is None:
        return ""
    return f"{value} shots" if key == "shots" else f"{key} {value}"
