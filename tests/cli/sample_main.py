"""Runs the sample stage as a program of its own: `python -m tests.cli.sample_main NAME …`."""

from __future__ import annotations

import sys

from icltool.cli.boundary import guarded
from icltool.cli.group import as_click
from icltool.cli.stage import stage_command
from tests.cli import sample

command = as_click(stage_command("sample", sample.SampleConfig, lambda: sample.run), "sample")


def call(arguments: list[str]) -> int:
    """The exit code of `sample ARGUMENTS`."""

    def inner() -> None:
        with command.make_context("sample", list(arguments)) as context:
            command.invoke(context)

    return guarded(inner)


if __name__ == "__main__":
    sys.exit(call(sys.argv[1:]))
