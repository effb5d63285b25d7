"""Progress as people see it: bars on a terminal, lines elsewhere, silence under --quiet."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from icltool.execution.progress import BarProgress, Count, LineProgress, SilentProgress, duration, for_terminal, rate

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.44, "0.4 s"), (9.96, "10 s"), (12.3, "12 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("amount", "seconds", "shown"),
    [
        (1234, 1, "1,234 images/s"),
        (25, 2, "12.5 images/s"),
        (1, 10, "10 s per unit"),
        (0, 5, "- images/s"),
        (5, 0, "- images/s"),
    ],
)
def test_rates(amount: float, seconds: float, shown: str) -> None:
    assert rate(amount, seconds, "images") == shown


def test_lines_come_at_intervals_and_at_the_end() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, interval=0.05, patience=0)
    with progress.task("embed", total=40, unit="images", done=10) as ticker:
        ticker.note("loss 0.3")
        for _ in range(30):
            time.sleep(0.01)
            ticker.advance()
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 8
    number = r"[\d.,]+"
    for line in lines[:-1]:
        assert re.fullmatch(rf"embed: \d+ of 40 images \(\d+ %\), {number} images/s, {number} s left, loss 0\.3", line)
    assert re.fullmatch(
        rf"embed: 40 images \(10 from an earlier run\) in {number} s, {number} images/s, loss 0\.3", lines[-1]
    )


def test_the_rate_of_a_resumed_run_counts_new_units_only() -> None:
    stream = io.StringIO()
    with LineProgress(stream, patience=0).task("embed", total=1_000_002, unit="images", done=1_000_000) as ticker:
        time.sleep(0.1)
        ticker.advance(2)
    shown = re.search(r", ([\d.]+) images/s", stream.getvalue())
    assert shown is not None
    assert float(shown[1]) <= 20


def test_short_work_says_nothing() -> None:
    stream = io.StringIO()
    with LineProgress(stream).task("short", total=3, unit="files") as ticker:
        ticker.advance(3)
    assert stream.getvalue() == ""


def test_work_that_fails_says_how_far_it_came() -> None:
    stream = io.StringIO()

    def work() -> None:
        with LineProgress(stream, patience=0).task("read", total=9, unit="files") as ticker:
            ticker.advance(4)
            raise ValueError

    with pytest.raises(ValueError):
        work()
    assert stream.getvalue().startswith("read: stopped at 4 of 9 files in ")


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
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_without_a_terminal_there_are_lines() -> None:
    assert isinstance(for_terminal(), LineProgress)


def test_bars_show_count_rate_and_remaining_time() -> None:
    from rich.console import Console

    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=120, color_system=None), patience=0.05)
    with progress.task("search", total=10, unit="anchors") as ticker, progress.task("inner", 2, "steps") as inner:
        for _ in range(10):
            time.sleep(0.06)
            ticker.advance()
            ticker.note("loss 0.25")
            progress.say("a [line] between")
        inner.advance(2)
    shown = stream.getvalue()
    assert re.search(r"search ━.* \d+/10 anchors [\d.]+ anchors/s 0:00:\d\d loss 0\.25", shown)
    assert "inner" in shown
    assert "a [line] between" in shown
    assert re.search(r"\nsearch: 10 anchors in [\d.]+ s, [\d.]+ anchors/s, loss 0\.25", shown.replace("\r", "\n"))


def test_a_bar_appears_though_the_first_unit_takes_long() -> None:
    from rich.console import Console

    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=100, color_system=None), patience=0.02)
    with progress.task("load", total=1, unit="models"):
        time.sleep(0.4)
        assert "load" in stream.getvalue()


def test_short_work_shows_no_bar() -> None:
    from rich.console import Console

    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=100))
    with progress.task("short", total=1, unit="files") as ticker:
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


def test_what_came_before_the_first_unit_does_not_count_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    count = Count("searching", 102, "anchors", 0)
    now[0] = 100.0  # a model was loaded
    count.advance(2)
    assert "left" in count.state()
    now[0] = 110.0
    count.advance(50)
    assert count.state() == "searching: 52 of 102 anchors (50 %), 5.0 anchors/s, 10 s left"
    assert "in 1 min 50 s" in count.summary(failed=False)
