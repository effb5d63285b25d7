"""What of the data sets of a suite is prepared, and as the suite means it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.errors import ConfigError, closest
from icltool.plugin.manager import load_registry
from icltool.store.paired import BESIDE, names_of_pair
from icltool.store.prepared import open_dataset
from icltool.store.workspace import Workspace


def check_names(suite: str, configs: Sequence[EvaluateConfig], prepared: Collection[str]) -> None:
    """Raises ConfigError for a name that is neither prepared nor a data set that icltool reads."""
    readers = load_registry().names("datasets")
    for name in (name for config in configs for name in _names(config, prepared)):
        if name not in prepared and name not in readers:
            close = closest(name, sorted({*prepared, *readers}))
            raise ConfigError(
                f"suite {suite}: {name!r} is neither prepared nor the name of a data set",
                f"{f'did you mean {close!r}? otherwise ' if close else ''}run `icltool prepare READER --name {name}`",
            )


def missing(workspace: Workspace, config: EvaluateConfig, options: Mapping[str, object]) -> list[str]:
    """What an evaluation needs and is not prepared, each with the command that prepares it, which has these `options` of the
    reader. Raises StoreError where a data set is prepared for several tasks and none is named."""
    tasks_of: dict[str, list[str]] = {}
    for name, known in workspace.prepared():
        tasks_of.setdefault(name, []).append(known)
    task, lines = config.task, []
    for position, name in enumerate(_names(config, tasks_of)):
        tasks = tasks_of.get(name, [])
        if tasks if task is None else task in tasks:
            task = task or workspace.choose_dataset(name)[1]
            continue
        other = f" for task {task}" if tasks else ""
        command = _prepare(name, task, {} if position else options)
        whose = f"{config.dataset}: demonstrations are of {name}, which" if position else name
        lines.append(f"{whose} is not prepared{other}: run `{command}`")
    return lines


def differences(workspace: Workspace, config: EvaluateConfig, options: Mapping[str, object]) -> list[str]:
    """The options of the reader that a prepared data set has another value of than the suite's protocol."""
    if not options:
        return []
    name = _names(config, {name for name, _ in workspace.prepared()})[0]
    dataset = open_dataset(workspace.dataset_folder(*workspace.choose_dataset(name, config.task)))
    options_then = dataset.manifest.get("provenance", {}).get("inputs", {}).get("options", {})
    lines = []
    for key, value in options.items():
        if (has := options_then.get(key) if isinstance(options_then, dict) else None) != value:
            command = _prepare(name, dataset.task, options)
            was = "without" if has is None else f"with {key}={has}, not"
            lines.append(f"protocol differs: the data set was prepared {was} {key}={value}; `{command}` prepares it so")
    return lines


def _names(config: EvaluateConfig, prepared: Collection[str]) -> tuple[str, ...]:
    """The data set of the queries, then that of the demonstrations if it is another one."""
    assert config.dataset is not None
    name, index = config.dataset, config.index_dataset
    if index is not None or name in prepared:
        return (name,) if index in (None, name) else (name, str(index))
    queries, _, beside = name.partition(BESIDE)
    return names_of_pair(name, prepared) or ((queries, beside) if beside else (name,))


def _prepare(name: str, task: str | None, options: Mapping[str, object]) -> str:
    """The command that prepares a data set; the reader of one under another name is for the user to say."""
    reader = name if name in load_registry().names("datasets") else f"READER --name {name}"
    chosen = "".join(f" --option {key}={value}" for key, value in options.items())
    return f"icltool prepare {reader}{f' --task {task}' if task else ''} --root DIR{chosen}"
