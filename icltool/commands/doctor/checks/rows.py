"""A line of what `icltool doctor` tells, and the form that its JSON has."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import TypedDict


class _Line(TypedDict):
    item: str
    value: str
    status: str
    note: str


class Row(_Line, total=False):
    """`status` is "ok", "missing", "problem", or "-" where nothing is wrong either way; `note` says what to do. Some rows have
    `data` as well, what the value says as numbers, texts and lists, for programs."""

    data: Mapping[str, object]


def row(item: str, value: object, status: str = "ok", note: str = "", data: Mapping[str, object] | None = None) -> Row:
    """One line of a section."""
    line: Row = {"item": item, "value": str(value), "status": status, "note": note}
    if data is not None:
        line["data"] = dict(data)
    return line


def run(command: str | Sequence[str], patience: float = 10.0) -> tuple[int, str, str]:
    """(exit code, output, errors) of a program; the code is 1 where it does not run, or takes longer than `patience` seconds,
    as nvidia-smi may where a GPU has failed. torch's collectors run programs by such a function."""
    words = shlex.split(command) if isinstance(command, str) and os.name != "nt" else command
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=patience, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        return 1, "", type(error).__name__
    return answer.returncode, answer.stdout.strip(), answer.stderr.strip()


def collected(what: str) -> str:
    """What a collector of `torch.utils.collect_env` tells; "" for nothing, and where torch does not import."""
    try:
        from torch.utils import collect_env
    except Exception:  # the devices say why
        return ""
    return getattr(collect_env, f"get_{what}")(run) or ""
