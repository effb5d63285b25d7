"""Progress as stages see it: they say how much there is and how far they are; the command line decides how it looks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Ticker(Protocol):
    """Advances one piece of work."""

    def advance(self, amount: int = 1) -> None: ...

    def note(self, text: str) -> None:
        """A short remark beside the bar (the current loss, say); it replaces the one before."""
        ...


class Progress(Protocol):
    """Where a stage reports what it does."""

    def task(self, description: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Ticker]:
        """A piece of work of `total` units, `done` of them finished before (a resumed run)."""
        ...

    def say(self, text: str) -> None:
        """One line for the user; silent under --quiet."""
        ...

    def detail(self, text: str) -> None:
        """One line that only --verbose shows."""
        ...
