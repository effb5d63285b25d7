"""Progress for people: bars on a terminal, a line now and then elsewhere, nothing under --quiet. All on stderr."""

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

#: Work that is over sooner than this many seconds shows no bar and no line.
PATIENCE = 1.0
#: Seconds between two lines where there is no terminal.
INTERVAL = 5.0


def for_terminal(quiet: bool = False, verbose: bool = False) -> Progress:
    """Bars when stderr is a terminal, lines when it is not, silence under --quiet. All goes to stderr as it is now."""
    if quiet or sys.stderr is None:  # closed by whoever started the command
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


def rate(amount: float, seconds: float, unit: str) -> str:
    """Units per second, or seconds per unit where that reads better."""
    if amount <= 0 or seconds <= 0:
        return f"- {unit}/s"
    per_second = amount / seconds
    if per_second < 0.5:
        one = f"{unit.removesuffix('ies')}y" if unit.endswith("ies") else unit.removesuffix("s")
        return f"{duration(1 / per_second)} per {one}"
    return f"{per_second:,.0f} {unit}/s" if per_second >= 100 else f"{per_second:.1f} {unit}/s"


class Count:
    """How far one piece of work is. Units that an earlier run finished count for the total, not for the rate."""

    def __init__(self, description: str, total: int, unit: str, done: int) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.before = self.done = done
        self.remark = ""
        self.started = time.monotonic()
        self._first: tuple[float, int] | None = None  # when the first units were done, and how many there were then

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def advance(self, amount: int) -> None:
        self.done += amount
        if self._first is None:
            self._first = (time.monotonic(), self.done)

    @property
    def _warm(self) -> bool:
        """Whether more than the first units are done, in whose time a model may have been loaded."""
        return self._first is not None and self.done > self._first[1]

    @property
    def pace(self) -> tuple[int, float]:
        """(units, seconds) by which what is left can be told: without what came before the first unit was done (a model was
        loaded), as soon as others were."""
        if self._first is not None and self._warm:
            since, there = self._first
            return self.done - there, time.monotonic() - since
        return self.done - self.before, self.elapsed

    def state(self) -> str:
        """ "embed images: 120 of 2,000 images (6 %), 35.1 images/s, 54 s left, loss 0.3". After the first units alone nothing
        is said of what is left."""
        share = f" ({100 * self.done // self.total} %)" if self.total else ""
        worked, elapsed = self.pace
        parts = [f"{self.description}: {self.done:,} of {self.total:,} {self.unit}{share}"]
        parts.append(rate(worked, elapsed, self.unit))
        if self._warm and self.total > self.done:
            parts.append(f"{duration((self.total - self.done) * elapsed / worked)} left")
        return ", ".join(parts + ([self.remark] if self.remark else []))

    def summary(self, failed: bool) -> str:
        """The last line: what was done, in which time."""
        worked, elapsed = self.done - self.before, self.elapsed
        resumed = f" ({self.before:,} from an earlier run)" if self.before else ""
        amount = f"stopped at {self.done:,} of {self.total:,}" if failed else f"{self.done:,}"
        head = f"{self.description}: {amount} {self.unit}{resumed} in {duration(elapsed)}"
        return ", ".join([head, rate(worked, elapsed, self.unit), *([self.remark] if self.remark else [])])


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Ticker]:
        yield _SilentTicker()

    def say(self, text: str) -> None:
        """Nothing."""

    def detail(self, text: str) -> None:
        """Nothing."""


class _SilentTicker:
    def advance(self, amount: int = 1) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class LineProgress:
    """Plain lines: one every `interval` seconds at most, and one at the end of work that took `patience` or longer."""

    def __init__(
        self,
        stream: TextIO | None = None,
        verbose: bool = False,
        interval: float = INTERVAL,
        patience: float = PATIENCE,
    ) -> None:
        self._stream, self._verbose = stream, verbose
        self._interval, self._patience = interval, patience

    @contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Ticker]:
        count = Count(description, total, unit, done)
        failed = True
        try:
            yield _LineTicker(self, count, self._interval)
            failed = False
        finally:
            if count.elapsed >= self._patience:
                self.say(count.summary(failed))

    def say(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        if self._verbose:
            self.say(text)


class _LineTicker:
    def __init__(self, owner: LineProgress, count: Count, interval: float) -> None:
        self._owner, self._count, self._interval = owner, count, interval
        self._next = count.started + interval

    def advance(self, amount: int = 1) -> None:
        self._count.advance(amount)
        if time.monotonic() >= self._next and self._count.done < self._count.total:
            self._owner.say(self._count.state())
            self._next = time.monotonic() + self._interval

    def note(self, text: str) -> None:
        self._count.remark = text


class BarProgress:
    """Bars on a terminal: description, bar, count, rate, remaining time. A finished bar leaves one line."""

    def __init__(self, console: Console, verbose: bool = False, patience: float = PATIENCE) -> None:
        self._console, self._verbose, self._patience = console, verbose, patience
        self._lock = threading.RLock()
        self._bars: Bars | None = None
        self._counts: dict[Count, TaskID | None] = {}

    @contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Ticker]:
        count = Count(description, total, unit, done)
        # A timer, so that work whose first unit takes minutes shows its bar as well.
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
        """Adds the bar of `count`, and starts drawing with the first one."""
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
            shown = self._counts.get(count)
            if self._bars is not None and shown is not None:
                self._bars.update(shown, completed=count.done, **_fields(count))

    def _finish(self, count: Count, failed: bool) -> None:
        with self._lock:
            shown = self._counts.pop(count)
            if self._bars is None or shown is None:
                return
            self._bars.remove_task(shown)
            if not any(task is not None for task in self._counts.values()):
                self._bars.stop()
                self._bars = None
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
    """What the columns right of the bar show."""
    return {
        "amount": f"{count.done:,}/{count.total:,} {count.unit}",
        "rate": rate(*count.pace, count.unit),
        "note": count.remark,
    }


def _bars(console: Console) -> Bars:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[amount]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False, style="dim"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        transient=True,
        refresh_per_second=5,
        redirect_stdout=False,  # the command line keeps off what others print
        redirect_stderr=False,
    )
