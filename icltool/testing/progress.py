"""A progress display that shows nothing and checks its counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from icltool.testing.expectations import expect


class QuietTicker:
    """Counts the items of one piece of work."""

    def __init__(self, description: str, total: int, done: int) -> None:
        self.description, self.total, self.done = description, total, done

    def advance(self, amount: int = 1) -> None:
        expect(amount >= 0, f"progress of {self.description!r} went back by {-amount}")
        self.done += amount
        expect(self.done <= self.total, f"progress of {self.description!r} is at {self.done} of {self.total}")

    def note(self, text: str) -> None:
        pass


class QuietProgress:
    """`icltool.Progress` for tests. `lines` are the printed lines, `tickers` the tasks."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tickers: list[QuietTicker] = []

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[QuietTicker]:
        ticker = QuietTicker(description, total, done)
        self.tickers.append(ticker)
        yield ticker

    def say(self, text: str) -> None:
        self.lines.append(text)

    def detail(self, text: str) -> None:
        self.lines.append(text)
