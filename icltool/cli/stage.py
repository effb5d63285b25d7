"""Builds a stage's command from its configuration model; the command resolves, runs the stage and prints its report."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional, TypeAlias

from icltool.cli.completion import complete_profiles
from icltool.cli.layout import Heading
from icltool.cli.libraries import library_output
from icltool.cli.options import AS_JSON, COMMON, QUIET, plain_parameter, sign
from icltool.cli.output import Report, show
from icltool.config.base import StageConfig
from icltool.config.env import load_environment
from icltool.config.resolve import resolve
from icltool.contracts import Progress
from icltool.execution.processes import is_leader
from icltool.execution.progress import for_terminal

#: Stages that all processes of a launcher take part in.
DISTRIBUTED = ("train",)

#: What runs a stage: with the resolved options it gives a report, or the files it wrote.
Run: TypeAlias = Callable[[StageConfig, Progress], Report | Sequence[Path]]


def stage_command(stage: str, model: type[StageConfig], load_run: Callable[[], Run]) -> Callable[..., None]:
    """The command of a stage: a function whose signature is made from the fields of `model`, and its help from the docstring.

    `load_run` imports the stage's `run(config, progress)`, which takes its time.
    """

    def command(**values: Any) -> None:
        environment = load_environment()
        profile, sets = values.pop("common_profile"), values.pop("common_sets") or []
        quiet, verbose, as_json = values.pop("common_quiet"), values.pop("common_verbose"), values.pop("common_json")
        if stage not in DISTRIBUTED and not is_leader():
            return  # process 0 does it all; several devices are for the executor
        silent = quiet or not is_leader()
        progress = for_terminal(silent, verbose)
        with library_output(progress.detail if verbose and not silent else None, progress.say):
            if environment is not None and environment.ignored:
                progress.detail(f"{environment.path}: left alone {', '.join(environment.ignored)}")
            config = resolve(stage, model, values, profile, sets)
            progress.detail(f"{stage}: {json.dumps(config.model_dump(mode='json'))}")
            report = load_run()(config, progress)
        if is_leader():  # the other processes of a distributed training have nothing to add
            show(report, as_json, quiet, verbose)

    command.__name__ = stage
    sign(command, model, *_common())
    return command


def _common() -> list[inspect.Parameter]:
    """The options that every stage has."""
    return [
        plain_parameter(
            "common_profile",
            Optional[str],  # noqa: UP045 (Typer reads it)
            "--profile",
            metavar="NAME",
            autocompletion=complete_profiles,
            help="read options from a profile, by its name or the path of a TOML file; options on the command line win",
            heading=Heading(COMMON, daily=True),
        ),
        plain_parameter(
            "common_sets",
            Optional[list[str]],  # noqa: UP045
            "--set",
            metavar="KEY=VALUE",
            help="set one option: overrides the profile, and is overridden by the other flags; repeatable",
            heading=Heading(COMMON, daily=False),
        ),
        QUIET,
        plain_parameter(
            "common_verbose",
            bool,
            "--verbose",
            "-v",
            default=False,
            help="show more detail",
            heading=Heading(COMMON, daily=True),
        ),
        AS_JSON,
    ]
