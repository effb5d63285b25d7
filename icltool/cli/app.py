"""The `icltool` program: quick help or the command itself, inside an error boundary."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from icltool.cli.boundary import guarded
from icltool.cli.quick_help import quick_help


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 1 for a bug, 2 for a user's error, 130 after Ctrl-C, 143 after
    SIGTERM."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if os.environ.get("_ICLTOOL_COMPLETE"):
        from icltool.cli.group import command_line

        command_line().main([], prog_name="icltool")  # answers the shell's question and exits
    return guarded(lambda: _call(words))


def _call(words: list[str]) -> None:
    if (text := quick_help(words)) is not None:
        print(text, end="")
        return
    from icltool.cli.group import command_line

    group = command_line()
    with group.make_context("icltool", words) as context:
        group.invoke(context)


def main() -> None:
    """The entry point of the `icltool` script."""
    sys.exit(run())
