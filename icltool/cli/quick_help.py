"""Help without the commands: from a file that `python -m icltool.cli.reference --write` renews, which spares the imports of
Typer, pydantic and the commands. A test compares it with the help of the commands themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from icltool.cli.layout import CommandHelp, Row, render
from icltool.cli.others import plugins_are_installed

FILE = Path(__file__).with_name("help.json")


def quick_help(words: Sequence[str]) -> str | None:
    """The help that `icltool WORDS` asks for, without other options; None if the command itself must answer."""
    *names, flag = words or ["--help"]
    if flag not in ("-h", "--help", "--help-all") or (not names and plugins_are_installed()):
        return None
    help = stored_help().get(" ".join(["icltool", *names]))
    return None if help is None else render(help, everything=flag == "--help-all")


def stored_help() -> dict[str, CommandHelp]:
    """The help of every command of icltool, by its path ("icltool plugins list")."""
    entries = json.loads(FILE.read_text(encoding="utf-8"))
    helps = (CommandHelp(**{key: _from_json(value) for key, value in entry.items()}) for entry in entries)
    return {help.path: help for help in helps}


def as_json(helps: Iterable[CommandHelp]) -> str:
    """The content of the file."""
    return json.dumps([help._asdict() for help in helps], indent=1, ensure_ascii=False) + "\n"


def _from_json(value: Any) -> Any:
    """A text, a list of texts or a list of rows."""
    return [Row(*item) if isinstance(item, list) else item for item in value] if isinstance(value, list) else value
