"""Progress on stderr: live bars on a terminal, lines at growing intervals in a log, nothing under --quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from icltool.contracts.progress import Progress, Ticker

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars, TaskID

#: Work that takes fewer seconds than this shows no bar and no line.
PATIENCE = 1.0
#: Without a terminal: seconds before the first line of a piece of work. Each interval is twice the one before, up to LONGEST.
FIRST, LONGEST = 10.0, 300.0
#: Items that are finished this soon after the first, as a share of its time, count as finished with it.
WARM_UP = 0.1


def for_terminal(quiet: bool = False, verbose: bool = False) -> Progress:
    """Bars if stderr is a terminal, lines if it is not, silence under --quiet."""
    if quiet or sys.stderr is None:  # the process was started with stderr closed
        return SilentProgress()
    from rich.console import Console

    console = Console(file=sys.stderr)
    if console.is_terminal and not console.is_dumb_terminal:
        return BarProgress(console, verbose=verbose)
    return LineProgress(sys.stderr, verbose=verbose)


def duration(seconds: float) -> str:
    """A length of time as people say it: "0.4 s", "12 s", "3 min 05 s", "2 h 10 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(amount: float, seconds: float, noun: str) -> str:
    """Items per second, or seconds per item below one in two seconds; `noun` is the plural ("images"). "" if it is unknown."""
    if amount <= 0 or seconds <= 0:
        return ""
    per_second = amount / seconds
    if per_second < 0.5:
        return f"{duration(1 / per_second)} per {_singular(noun)}"
    return f"{per_second:,.0f} {noun}/s" if per_second >= 100 else f"{per_second:.1f} {noun}/s"


def _singular(noun: str) -> str:
    for plural, one in (("ies", "y"), ("ches", "ch"), ("s", "")):
        if noun.endswith(plural):
            return noun.removesuffix(plural) + one
    return noun


class Count:
    """How many items of one piece of work are finished.

    The rate counts neither the items of an earlier run nor the time before the first item is finished, in which a model may
    be loaded.
    """

    def __init__(self, description: str, total: int, noun: str, done: int) -> None:
        self.description, self.total, self.noun = description, total, noun
        self.before = self.done = done
        self.remark = ""
        self.started = time.monotonic()
        self._warm_until: float | None = None
        self._warm_at, self._warm_done = self.started, done

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def advance(self, amount: int) -> None:
        """Counts `amount` items as finished. The first items may come together, one from each worker or a batch: the rate is
        measured from the last of them."""
        self.done += amount
        now = time.monotonic()
        if self._warm_until is None:
            self._warm_until = now + WARM_UP * (now - self.started)
        if now <= self._warm_until:
            self._warm_at, self._warm_done = now, self.done

    @property
    def pace(self) -> tuple[int, float]:
        """(items, seconds) since the first items were finished; (0, ...) if no other item is finished."""
        return self.done - self._warm_done, time.monotonic() - self._warm_at

    @property
    def rate(self) -> str:
        return rate(*self.pace, self.noun)

    @property
    def remaining(self) -> str:
        """Time to the end at the present rate; "" if it is unknown, or nothing is left."""
        amount, seconds = self.pace
        return duration((self.total - self.done) * seconds / amount) if amount and self.total > self.done else ""

    def state(self) -> str:
        """ "embed images: 120 of 2,000 images (6 %), 35.1 images/s, 54 s left, loss 0.3"."""
        share = f" ({100 * self.done // self.total} %)" if self.total else ""
        head = f"{self.description}: {self.done:,} of {self.total:,} {self.noun}{share}"
        left = f"{self.remaining} left" if self.remaining else ""
        return ", ".join(filter(None, [head, self.rate, left, self.remark]))

    def summary(self, failed: bool) -> str:
        """The last line: the number of items, the whole time, and the rate."""
        resumed = f" ({self.before:,} from an earlier run)" if self.before else ""
        noun = _singular(self.noun) if self.total == 1 else self.noun
        amount = f"stopped at {self.done:,} of {self.total:,}" if failed else f"{self.done:,}"
        head = f"{self.description}: {amount} {noun}{resumed} in {duration(self.elapsed)}"
        return ", ".join(filter(None, [head, self.rate, self.remark]))


class SilentProgress:
    """Prints nothing."""

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Ticker]:
        yield _SilentTicker()

    def say(self, text: str) -> None:
        """Prints nothing."""

    def detail(self, text: str) -> None:
        """Prints nothing."""


class _SilentTicker:
    def advance(self, amount: int = 1) -> None:
        """Prints nothing."""

    def note(self, text: str) -> None:
        """Prints nothing."""


class LineProgress:
    """Plain lines: at growing intervals, and one at the end of work that took `patience` seconds or longer."""

    def __init__(self, stream: TextIO | None = None, verbose: bool = False, patience: float = PATIENCE) -> None:
        self._stream, self._verbose, self._patience = stream, verbose, patience

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Ticker]:
        count = Count(description, total, noun, done)
        failed = True
        try:
            yield _LineTicker(self, count)
            failed = False
        finally:
            if count.elapsed >= self._patience and (count.done > count.before or not failed):
                self.say(count.summary(failed))

    def say(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        if self._verbose:
            self.say(text)


class _LineTicker:
    def __init__(self, owner: LineProgress, count: Count) -> None:
        self._owner, self._count = owner, count
        self._interval, self._next = FIRST, count.started + FIRST

    def advance(self, amount: int = 1) -> None:
        self._count.advance(amount)
        if time.monotonic() >= self._next and self._count.done < self._count.total:
            self._owner.say(self._count.state())
            self._interval = min(2 * self._interval, LONGEST)
            self._next = time.monotonic() + self._interval

    def note(self, text: str) -> None:
        self._count.remark = text


class BarProgress:
    """Bars on a terminal: description, bar, count, rate, remaining time. A finished bar becomes one line."""

    def __init__(self, console: Console, verbose: bool = False, patience: float = PATIENCE) -> None:
        self._console, self._verbose, self._patience = console, verbose, patience
        self._lock = threading.RLock()
        self._bars: Bars | None = None
        self._counts: dict[Count, TaskID | None] = {}

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Ticker]:
        count = Count(description, total, noun, done)
        # A timer, so that the bar also appears if the first item takes minutes.
        timer = threading.Timer(self._patience, self._show, [count])
        timer.daemon = True
        with self._lock:
            self._counts[count] = None
        timer.start()
        failed = True
        try:
            yield _BarTicker(self, count)
            failed = False
        finally:
            timer.cancel()
            self._finish(count, failed)

    def say(self, text: str) -> None:
        with self._lock:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        if self._verbose:
            with self._lock:
                self._console.print(text, markup=False, highlight=False, soft_wrap=True, style="dim")

    def _show(self, count: Count) -> None:
        """Adds the bar of `count`; the first one starts the display."""
        with self._lock:
            if count not in self._counts:
                return
            if self._bars is None:
                self._bars = _bars(self._console)
                self._bars.start()
            self._counts[count] = self._bars.add_task(
                count.description, total=count.total, completed=count.done, **_fields(count)
            )

    def _refresh(self, count: Count) -> None:
        with self._lock:
            bar = self._counts.get(count)
            if self._bars is not None and bar is not None:
                self._bars.update(bar, completed=count.done, **_fields(count))

    def _finish(self, count: Count, failed: bool) -> None:
        with self._lock:
            bar = self._counts.pop(count)
            if self._bars is None or bar is None:
                return
            self._bars.remove_task(bar)
            if not any(task is not None for task in self._counts.values()):
                self._bars.stop()
                self._bars = None
            if count.done > count.before or not failed:
                self.say(count.summary(failed))


class _BarTicker:
    def __init__(self, owner: BarProgress, count: Count) -> None:
        self._owner, self._count = owner, count

    def advance(self, amount: int = 1) -> None:
        self._count.advance(amount)
        self._owner._refresh(self._count)

    def note(self, text: str) -> None:
        self._count.remark = text
        self._owner._refresh(self._count)


def _fields(count: Count) -> dict[str, Any]:
    """The texts right of the bar."""
    return {
        "amount": f"{count.done:,}/{count.total:,} {count.noun}",
        "rate": ", ".join(filter(None, [count.rate, f"{count.remaining} left" if count.remaining else ""])),
        "note": count.remark,
    }


def _bars(console: Console) -> Bars:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[amount]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False, style="dim"),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        transient=True,
        refresh_per_second=5,
        redirect_stdout=False,  # the command line handles what libraries print
        redirect_stderr=False,
    )
