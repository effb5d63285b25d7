"""Progress as people see it: bars on a terminal, lines in a log, silence under --quiet."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from icltool.execution import progress as progress_module
from icltool.execution.progress import BarProgress, Count, LineProgress, SilentProgress, duration, for_terminal, rate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees: its only element, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.96, "10 s"), (12.3, "12 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "seconds", "text"),
    [
        (1234, 1, "1,234 images/s"),
        (25, 2, "12.5 images/s"),
        (1, 10, "10 s per image"),
        (0, 5, ""),
        (5, 0, ""),
    ],
)
def test_rates(amount: float, seconds: float, text: str) -> None:
    assert rate(amount, seconds, "images") == text


@pytest.mark.parametrize(
    ("noun", "text"),
    [("queries", "10 s per query"), ("batches", "10 s per batch"), ("images", "10 s per image"), ("MB", "10 s per MB")],
)
def test_the_rate_names_one_item_in_the_singular(noun: str, text: str) -> None:
    assert rate(1, 10, noun) == text


def test_lines_come_at_growing_intervals_and_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    with LineProgress(stream).task("embed", total=110, noun="images", done=10) as ticker:
        ticker.note("loss 0.3")
        for _ in range(100):
            clock[0] += 1
            ticker.advance()
    assert stream.getvalue().splitlines() == [
        "embed: 20 of 110 images (18 %), 1.0 images/s, 1 min 30 s left, loss 0.3",
        "embed: 40 of 110 images (36 %), 1.0 images/s, 1 min 10 s left, loss 0.3",
        "embed: 80 of 110 images (72 %), 1.0 images/s, 30 s left, loss 0.3",
        "embed: 110 images (10 from an earlier run) in 1 min 40 s, 1.0 images/s, loss 0.3",
    ]


def test_a_log_of_hours_gets_a_line_every_five_minutes(clock: list[float]) -> None:
    stream = io.StringIO()
    with LineProgress(stream).task("search", total=8 * 3600, noun="anchors") as ticker:
        for _ in range(8 * 3600):
            clock[0] += 1
            ticker.advance()
    assert len(stream.getvalue().splitlines()) == 5 + (8 * 3600 - 310) // 300 + 1


def test_the_rate_of_a_resumed_run_counts_new_items_only(clock: list[float]) -> None:
    stream = io.StringIO()
    with LineProgress(stream, patience=0).task("embed", total=1_000_004, noun="images", done=1_000_000) as ticker:
        clock[0] = 0.1
        ticker.advance(2)
        clock[0] = 0.2
        ticker.advance(2)
    assert ", 20.0 images/s" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "lines"), [(0.9, 0), (1.0, 1)])
def test_short_work_says_nothing(seconds: float, lines: int, clock: list[float]) -> None:
    stream = io.StringIO()
    with LineProgress(stream).task("short", total=3, noun="files") as ticker:
        clock[0] = seconds
        ticker.advance(3)
    assert len(stream.getvalue().splitlines()) == lines


def test_work_that_fails_says_how_far_it_came() -> None:
    stream = io.StringIO()

    def work() -> None:
        with LineProgress(stream, patience=0).task("read", total=9, noun="files") as ticker:
            ticker.advance(4)
            raise ValueError

    with pytest.raises(ValueError):
        work()
    assert stream.getvalue().startswith("read: stopped at 4 of 9 files in ")


def test_work_that_fails_before_its_first_item_says_nothing() -> None:
    """A model that cannot be loaded, for example: the error says it all."""
    stream = io.StringIO()

    def work() -> None:
        with LineProgress(stream, patience=0).task("read", total=9, noun="files", done=3):
            raise ValueError

    with pytest.raises(ValueError):
        work()
    assert stream.getvalue() == ""


def test_details_need_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        progress = LineProgress(verbose=verbose)
        progress.say("said")
        progress.detail("detail")
        assert capsys.readouterr().err == ("said\ndetail\n" if verbose else "said\n")


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = for_terminal(quiet=True, verbose=True)
    assert isinstance(progress, SilentProgress)
    progress.say("x")
    progress.detail("x")
    with progress.task("x", 1, "files") as ticker:
        ticker.note("x")
        ticker.advance()
    output = capsys.readouterr()
    assert output.out + output.err == ""


def test_without_a_terminal_there_are_lines() -> None:
    assert isinstance(for_terminal(), LineProgress)


def test_bars_show_count_rate_and_remaining_time() -> None:
    from rich.console import Console

    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=120, color_system=None), patience=0.05)
    with progress.task("search", total=10, noun="anchors") as ticker, progress.task("inner", 2, "steps") as inner:
        for _ in range(9):
            time.sleep(0.06)
            ticker.advance()
            ticker.note("loss 0.25")
            progress.say("a [line] between")
        pattern = r"search ━.* \d+/10 anchors [\d.]+ anchors/s, [\d.]+ s left loss 0\.25"
        wait_until(lambda: re.search(pattern, stream.getvalue()))
        wait_until(lambda: "inner" in stream.getvalue())
        ticker.advance()
        inner.advance(2)
    screen = stream.getvalue()
    assert "a [line] between" in screen
    assert re.search(r"\nsearch: 10 anchors in [\d.]+ s, [\d.]+ anchors/s, loss 0\.25", screen.replace("\r", "\n"))


def test_a_bar_appears_though_the_first_item_takes_long() -> None:
    from rich.console import Console

    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=100, color_system=None), patience=0.02)
    with progress.task("load", total=1, noun="models"):
        wait_until(lambda: "load" in stream.getvalue())


def test_short_work_shows_no_bar() -> None:
    from rich.console import Console

    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=100), patience=60)
    with progress.task("short", total=1, noun="files") as ticker:
        ticker.advance()
    assert stream.getvalue() == ""


def test_a_real_terminal_gets_bars_on_stderr() -> None:
    """A child process whose stderr is a pseudo-terminal."""
    code = (
        "import time; from icltool.execution import progress as p; q = p.for_terminal();"
        "print(type(q).__name__, flush=True)\n"
        "with q.task('work', 5, 'files') as t:\n"
        "    for _ in range(5): time.sleep(0.3); t.advance()\n"
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    assert process.stdout is not None
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the terminal is closed with its last writer
            break
        if not part:
            break
        seen += part
    os.close(master)
    out = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert out == "BarProgress\n"
    assert b"work: 5 files in" in seen


def test_loading_does_not_count_for_the_rate(clock: list[float]) -> None:
    count = Count("searching", 102, "anchors", 0)
    clock[0] = 100.0  # a model was loaded
    count.advance(2)
    assert count.state() == "searching: 2 of 102 anchors (1 %)"
    clock[0] = 120.0
    count.advance(50)
    assert count.state() == "searching: 52 of 102 anchors (50 %), 2.5 anchors/s, 20 s left"
    clock[0] = 140.0
    count.advance(50)
    assert count.summary(failed=False) == "searching: 102 anchors in 2 min 20 s, 2.5 anchors/s"


def test_first_items_that_come_together_give_no_rate(clock: list[float]) -> None:
    """Each of eight workers finishes its first item after loading: their distance says nothing of the speed."""
    count = Count("searching", 80, "anchors", 0)
    for number in range(8):
        clock[0] = 60.0 + number / 2
        count.advance(1)
    assert count.state() == "searching: 8 of 80 anchors (10 %)"
    clock[0] = 93.5
    count.advance(8)
    assert count.state() == "searching: 16 of 80 anchors (20 %), 3.8 s per anchor, 4 min 00 s left"


def test_one_item_is_counted_in_the_singular(clock: list[float]) -> None:
    count = Count("reading", 1, "files", 0)
    clock[0] = 2.0
    count.advance(1)
    assert count.summary(failed=False) == "reading: 1 file in 2.0 s"
