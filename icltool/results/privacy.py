"""Takes out of what is shared what tells who wrote it: the home folder, the user's name, the machine's name."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
from pathlib import Path
from typing import overload


@overload
def without_names(value: str) -> str: ...
@overload
def without_names(value: dict[str, object]) -> dict[str, object]: ...
@overload
def without_names(value: object) -> object: ...
def without_names(value: object) -> object:
    """The same value with "~" for the home folder and for the user's name where it is a part of a path or a value of its own,
    and "HOST" for the machine's name; and with texts that any encoding of Unicode can write."""
    return _Hiding().value(value)


@overload
def without_places(value: str, workspace: Path) -> str: ...
@overload
def without_places(value: object, workspace: Path) -> object: ...
def without_places(value: object, workspace: Path) -> object:
    """As `without_names`, and paths in the workspace are relative to it."""
    roots = {str(workspace.absolute()), os.path.normpath(workspace.absolute())}
    with contextlib.suppress(OSError, RuntimeError):
        roots.add(str(workspace.resolve()))
    root = _any(roots, 2, r"(?<![\w.~-])", "")
    return without_names(value if root is None else _relative(value, root))


def _relative(value: object, root: re.Pattern[str]) -> object:
    if isinstance(value, dict):
        return {_relative(key, root): _relative(item, root) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_relative(item, root) for item in value]
    if not isinstance(value, str):
        return value
    below = re.sub(rf"{root.pattern}[/\\]+(?=[^\s/\\])", "", value)
    return re.sub(rf"{root.pattern}(?![\w-]|\.\w)", "the workspace", below)


class _Hiding:
    def __init__(self) -> None:
        homes = {os.path.expanduser("~")}  # noqa: PTH111  Path.home() raises where there is none
        with contextlib.suppress(OSError, RuntimeError):
            homes |= {str(Path(home).resolve()) for home in homes}
        users, hosts = set(), set()
        with contextlib.suppress(Exception):  # no entry for this user, as in some containers
            users.add(getpass.getuser())
        users |= {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "SLURM_JOB_USER")}
        with contextlib.suppress(OSError):
            full = socket.gethostname()
            hosts |= {full, full.partition(".")[0]}
        end = r"(?![\w.-])"
        self._patterns = [
            (_any(homes, 2, "", r"(?![\w-])"), "~"),
            (_any(users, 2, r"(?<=[/\\])", r"(?=[/\\]|\Z|[\s:,;)'\"])"), "~"),
            (_any(users, 2, r"\A", r"\Z"), "~"),
            (_any(hosts, 4, r"(?<![\w.-])", end), "HOST"),
        ]

    def value(self, value: object) -> object:
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        for pattern, instead in self._patterns:
            if pattern is not None:
                text = pattern.sub(instead, text)
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _any(words: set[str], least: int, before: str, after: str) -> re.Pattern[str] | None:
    """A pattern for any of the words of at least so many letters; None where there are none."""
    patterns = sorted((re.escape(word) for word in words if len(word.strip("/\\")) >= least), key=len, reverse=True)
    return re.compile(f"{before}(?:{'|'.join(patterns)}){after}") if patterns else None
