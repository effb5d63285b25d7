"""What libraries say while a command runs: nothing on the screen, unless --verbose asks for it."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from icltool.cli.app import run
from icltool.cli.libraries import library_output
from icltool.contracts import Progress
from icltool.errors import IclWarning
from icltool.execution.progress import BarProgress, for_terminal
from tests.cli import sample
from tests.cli.sample import SampleConfig, SampleReport
from tests.cli.sample_main import call

#: All of a command's options that decide what is on the screen.
MODES = ([], ["--quiet"], ["--json"], ["--verbose"], ["--verbose", "--json"], ["--verbose", "--quiet"])


def warning() -> None:
    warnings.warn("0 speaks", FutureWarning, stacklevel=1)


def warning_of_lightning() -> None:
    from lightning.fabric.utilities.rank_zero import rank_zero_warn

    rank_zero_warn("0 speaks")


def information_of_lightning() -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_info

    rank_zero_info("0 speaks")


def record_of_transformers() -> None:
    from transformers.utils.logging import get_logger

    get_logger("transformers.modeling_utils").warning("%d speaks", 0)


def record_without_handler() -> None:
    logging.getLogger("matplotlib.font_manager").warning("0 speaks")


def record_of_an_error() -> None:
    try:
        raise OSError("no such host")
    except OSError:
        logging.getLogger("huggingface_hub.file_download").exception("0 speaks")


def record_of_the_root_logger() -> None:
    logging.warning("0 speaks")  # as open_clip does; it gives the root logger a handler where there is none


def bar_of_transformers() -> None:
    from transformers.utils.logging import tqdm

    for _ in tqdm(range(2), bar_format="0 speaks"):
        pass


def bar_of_datasets() -> None:
    from datasets.utils import tqdm

    for _ in tqdm(range(2), bar_format="0 speaks", disable=False):
        pass


def printed() -> None:
    print("0", end=" ")
    print("speaks")


def printed_to_stderr() -> None:
    sys.stderr.write("0 speaks\n")


SPEAKERS: dict[Callable[[], None], str] = {
    warning: "tests: 0 speaks",
    warning_of_lightning: "tests: 0 speaks",
    information_of_lightning: "lightning: 0 speaks",
    record_of_transformers: "transformers: 0 speaks",
    record_without_handler: "matplotlib: 0 speaks",
    record_of_an_error: "huggingface_hub: 0 speaks (OSError: no such host)",
    record_of_the_root_logger: "tests: 0 speaks",
    bar_of_transformers: "tests: 0 speaks",
    bar_of_datasets: "tests: 0 speaks",
    printed: "tests: 0 speaks",
    printed_to_stderr: "tests: 0 speaks",
}


@contextmanager
def as_outside_tests() -> Iterator[None]:
    """Warnings and logs show on stderr as it is now, and pytest catches none."""

    def show(message: Warning | str, *_: object) -> None:
        print(message, file=sys.stderr)

    before: list[tuple[logging.Logger, list[logging.Handler], bool]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        for name in (None, "transformers", "huggingface_hub", "lightning", "lightning.pytorch"):
            logger = logging.getLogger(name)
            before.append((logger, logger.handlers, logger.propagate))
            logger.handlers = [] if name is None else [logging.StreamHandler()]
            logger.propagate = False
        try:
            yield
        finally:
            for logger, handlers, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate


def sample_that(*acts: Callable[[], object], options: Sequence[str]) -> int:
    """The exit code of the sample command, whose stage does this."""

    def stage(config: SampleConfig, progress: Progress) -> SampleReport:
        for act in acts:
            act()
        progress.say("working")
        return SampleReport(config)

    with as_outside_tests(), mock.patch.object(sample, "run", stage):
        return call(["x", *options])


@pytest.mark.parametrize("options", MODES, ids=" ".join)
@pytest.mark.parametrize("speak", SPEAKERS, ids=lambda speak: speak.__name__)
def test_a_message_is_shown_once_and_to_verbose_alone(
    speak: Callable[[], None],
    options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with as_outside_tests():
        speak()
    output = capsys.readouterr()
    assert "0 speaks" in output.out + output.err, "nothing would be shown anyway"
    assert sample_that(speak, speak, options=options) == 0
    output = capsys.readouterr()
    assert "speaks" not in output.out
    if "--json" in options:
        assert json.loads(output.out)["title"] == "sample"
    lines = [line for line in output.err.splitlines() if not line.startswith("sample: {")]
    if "--quiet" in options:
        assert lines == []
    else:
        assert lines == [SPEAKERS[speak]] * ("--verbose" in options) + ["working"]


def warning_of_a_component() -> None:
    warnings.warn("style 'Mild' is\nunknown", IclWarning, stacklevel=1)


@pytest.mark.parametrize("options", MODES, ids=" ".join)
def test_a_warning_of_ours_is_said_once(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert sample_that(warning_of_a_component, warning_of_a_component, options=options) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("sample: {")]
    assert lines == ([] if "--quiet" in options else ["style 'Mild' is unknown", "working"])


def test_everything_is_as_before_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    """Also after a bug, whose traceback shows."""

    def places() -> tuple[object, ...]:
        hooks = (warnings.showwarning, logging.StreamHandler.emit, threading.excepthook)
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        return (*hooks, sys.stdout, sys.stderr, dict(os.environ), os.fstat(1).st_ino, descriptors)

    before = places()
    for options in ([], ["--verbose"]):
        assert sample_that(*SPEAKERS, options=options) == 0
        assert places() == before
        assert "Error" not in capsys.readouterr().err.replace("OSError: no such host", "")
        assert sample_that(*SPEAKERS, lambda: 1 // 0, options=options) == 1
        assert places() == before
        assert "Traceback" in capsys.readouterr().err


def test_a_handler_that_a_command_left_writes_to_the_screen_of_now(capsys: pytest.CaptureFixture[str]) -> None:
    handlers: list[logging.Handler] = []
    assert sample_that(lambda: handlers.append(logging.StreamHandler()), options=["--quiet"]) == 0
    capsys.readouterr()
    record = logging.LogRecord("library", logging.WARNING, "file", 1, "later", None, None)
    handlers[0].emit(record)
    assert capsys.readouterr().err == "later\n"
    assert sample_that(lambda: handlers[0].emit(record), options=["--verbose"]) == 0
    assert "\nlibrary: later\n" in capsys.readouterr().err


def test_a_log_file_is_written_all_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    record = logging.LogRecord("library", logging.WARNING, "file", 1, "%d%%", (5,), None)
    with file.open("w") as opened:
        handlers = [logging.FileHandler(file), logging.StreamHandler(opened)]
        assert sample_that(*(partial(handler.emit, record) for handler in handlers), options=[]) == 0
        handlers[0].close()
    assert file.read_text() == "5%\n"
    assert capsys.readouterr().err == "working\n"


def test_a_record_whose_arguments_do_not_fit_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert sample_that(lambda: logging.getLogger("library").warning("%d of all", "some"), options=["-v"]) == 0
    assert "\nlibrary: %d of all\n" in capsys.readouterr().err


def test_of_a_bar_the_last_state_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    parts = ("\r  0%", "\r 50%", "\r100%", "\n", "\r   gone", "\r       \r", "a\r\n\n", "  b\tc \n", "no end")
    assert sample_that(*(lambda part=part: sys.stderr.write(part) for part in parts), options=["-v"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tests: ")]
    assert lines == ["tests: 100%", "tests: a", "tests: b c"]


def test_a_line_of_one_thread_is_not_mixed_with_those_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    def between() -> None:
        print("one", end=" ")
        thread = threading.Thread(target=lambda: print("other"))
        thread.start()
        thread.join()
        print("line")

    assert sample_that(between, options=["-v"]) == 0
    assert "\ntests: other\ntests: one line\n" in capsys.readouterr().err


def test_what_stands_for_the_screen_is_no_terminal_and_knows_its_encoding(capfd: pytest.CaptureFixture[str]) -> None:
    """Libraries ask for these before they print in colours."""
    seen: list[object] = []
    real = sys.stderr

    def look() -> None:
        stream = sys.stderr
        seen.extend((stream.isatty(), stream.writable(), stream.encoding, stream.fileno(), stream.buffer))

    assert sample_that(look, options=["-q"]) == 0
    assert seen == [False, True, real.encoding, real.fileno(), real.buffer]


def test_the_crash_of_a_thread_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def crash() -> None:
        thread = threading.Thread(target=lambda: 1 // 0)
        thread.start()
        thread.join()

    with mock.patch.object(threading, "excepthook", threading.__excepthook__):  # not that of pytest
        assert sample_that(crash, options=["--quiet"]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("options", MODES, ids=" ".join)
def test_a_forked_process_inherits_it(options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    def fork() -> None:
        child = os.fork()
        if child == 0:
            warning()
            warning()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    assert sample_that(fork, options=options) == 0
    output = capfd.readouterr()
    assert "speaks" not in output.out
    expected = "--verbose" in options and "--quiet" not in options
    assert [line for line in output.err.splitlines() if "speaks" in line] == ["tests: 0 speaks"] * expected


@pytest.mark.parametrize("options", MODES, ids=" ".join)
def test_native_code_and_child_processes(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What they write to stdout is not the command's result; warnings of Python stay away with the rest."""
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)

    def speak() -> None:
        os.write(1, b"0 speaks\n")
        subprocess.run(["echo", "0 speaks too"], check=True)
        subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('0 warns')"], check=True)

    assert sample_that(speak, options=options) == 0
    output = capfd.readouterr()
    expected = "--verbose" in options and "--quiet" not in options
    for text in ("0 speaks\n", "0 speaks too\n", "UserWarning: 0 warns"):
        assert text not in output.out
        assert output.err.count(text) == expected


def test_what_the_user_set_for_warnings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    with library_output():
        assert (os.environ["PYTHONWARNINGS"], os.environ["TORCH_CPP_LOG_LEVEL"]) == ("error", "ERROR")
    assert os.environ["PYTHONWARNINGS"] == "error"
    assert "TORCH_CPP_LOG_LEVEL" not in os.environ
    with library_output(str):
        assert "TORCH_CPP_LOG_LEVEL" not in os.environ


def test_messages_that_passed_before_are_not_repeated() -> None:
    lines: list[str] = []
    passed: set[str] = set()
    for text in ("one", "one", "two"):
        with library_output(lines.append, passed=passed):
            print(text)
    assert lines == ["tests: one", "tests: two"]
    with library_output(lines.append):
        print("one")
    assert lines == ["tests: one", "tests: two", "tests: one"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_of_ours_are_drawn_and_others_prints_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = for_terminal()
    assert isinstance(progress, BarProgress)
    progress._patience = 0.0
    with library_output(), progress.task("search", 2, "anchors") as ticker:
        while not screen.getvalue():
            ticker.note("waits")
        for _ in range(2):
            ticker.advance()
            printed()
            printed_to_stderr()
    assert "search: 2 anchors" in screen.getvalue()
    assert "speaks" not in screen.getvalue()


@pytest.mark.parametrize(("closed", "out"), [("2>&-", "sample"), (">&-", ""), (">&- 2>&-", "")])
def test_streams_that_are_closed_do_no_harm(closed: str, out: str) -> None:
    command = f"{sys.executable} -m tests.cli.sample_main noisy {closed}"
    root = str(Path(__file__).resolve().parents[2])
    answer = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert out in answer.stdout
    assert "working" not in answer.stdout
    assert "speaks" not in answer.stdout + answer.stderr


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_an_evaluation_leaves_stderr_empty(
    option: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a library that warns, logs and prints while the model answers."""
    from icltool.components.models.idefics.idefics import IdeficsModel

    clean = IdeficsModel.clean

    def noisy(model: IdeficsModel, task: str, text: str) -> str:
        for speak in SPEAKERS:
            speak()
        os.write(1, b"0 speaks\n")
        return clean(model, task, text)

    monkeypatch.setattr(IdeficsModel, "clean", noisy)
    arguments = ["--task", "caption", "--model", "tiny-idefics", "--encoder", "tiny-clip", "--device", "cpu"]
    chosen = ["--method", "zero-shot,random,i2i", "--shots", "2", "--test-size", "4", "--workspace", str(workspace)]
    with as_outside_tests():
        assert run(["evaluate", *arguments, *chosen, option]) == 0
    output = capfd.readouterr()
    assert output.err == ""
    assert "speaks" not in output.out
    assert "i2i" in output.out
    if option == "--json":
        assert {row["method"] for row in json.loads(output.out)["rows"]} == {"zero-shot", "random", "i2i"}
