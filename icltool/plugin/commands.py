"""The commands of icltool: the folders of `icltool/commands`, without a list of them.

The `__init__.py` of a command has one line for the overview and RANK, its place there. A stage has `options.py`
with its configuration model, NameConfig, whose docstring is the command's help, and `run.py` with `run(config, progress)`;
a command of another form has `command.py` with `command`, a function or a Typer group. Other packages add commands by the
hook `icltool_commands`.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "icltool.commands"


@functools.cache
def commands() -> dict[str, str]:
    """Name -> one line for the overview, in the order of their ranks."""
    modules = {name: importlib.import_module(f"{_PACKAGE}.{name}") for name in _folders()}
    return {name: str(module.__doc__) for name, module in sorted(modules.items(), key=lambda item: item[1].RANK)}


@functools.cache
def stages() -> tuple[str, ...]:
    """The commands that are stages, in the same order."""
    folders = _folders()
    return tuple(name for name in commands() if not (folders[name] / "command.py").is_file())


def command_target(name: str) -> str:
    """The target of the command's Registration: the model of a stage, or the command itself."""
    if name in stages():
        return f"{_PACKAGE}.{name}.options:{name.capitalize()}Config"
    return f"{_PACKAGE}.{name}.command:command"


def command_module(name: str, part: str) -> ModuleType:
    """The module `part` of a command, such as "run"."""
    return importlib.import_module(f"{_PACKAGE}.{name}.{part}")


def stage_model(stage: str) -> type[Any]:
    """The configuration model of a stage, a `StageConfig`."""
    model: type[Any] = getattr(command_module(stage, "options"), f"{stage.capitalize()}Config")
    return model


def stage_models() -> dict[str, type[Any]]:
    """The models of all stages."""
    return {stage: stage_model(stage) for stage in stages()}


def _folders() -> dict[str, Path]:
    roots = map(Path, importlib.import_module(_PACKAGE).__path__)
    return {path.name: path for root in roots for path in root.iterdir() if (path / "__init__.py").is_file()}
