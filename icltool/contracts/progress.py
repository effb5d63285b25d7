"""Progress as stages report it: how much work there is and how much is done. The command line decides how it looks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Ticker(Protocol):
    """Counts the finished items of one piece of work."""

    def advance(self, amount: int = 1) -> None: ...

    def note(self, text: str) -> None:
        """A short remark beside the bar (for example the current loss); it replaces the previous one."""
        ...


class Progress(Protocol):
    """Where a stage reports what it does."""

    def task(self, description: str, total: int, noun: str, done: int = 0) -> AbstractContextManager[Ticker]:
        """A piece of work of `total` items, `done` of them finished by an earlier run; `noun` is the items' name in the plural
        ("images")."""
        ...

    def say(self, text: str) -> None:
        """One line for the user; silent under --quiet."""
        ...

    def detail(self, text: str) -> None:
        """One line that only --verbose shows."""
        ...
