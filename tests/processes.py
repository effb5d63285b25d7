"""Forks of the test process, which has imported everything already: for what is killed, stopped or seen from outside."""

from __future__ import annotations

import importlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

#: Stops a hang; far more than anything takes.
PATIENCE = 300.0
#: How a child ends whose call raised what nobody caught.
ESCAPED = 99


def compiled(source: Path, folder: Path) -> Path:
    """A library to be loaded into processes by LD_PRELOAD, compiled from C into `folder`. Skips where nothing compiles."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = folder / f"{source.stem}.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class Child:
    """A fork of this process at work on `call`, which may return an exit code; what both streams get is kept.

    Its process is a group of its own, and it is killed when the block ends. Signals are handled as in a new interpreter.
    """

    def __init__(self, call: Callable[[], Any], stdin: int | None = None) -> None:
        self._streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self._code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._work(call, stdin)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *about: object) -> None:
        self.kill()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to it and to what it started."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it is no group yet
                os.killpg(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def poll(self) -> int | None:
        """As that of subprocess.Popen: the exit code, a signal's negative number, or None while it runs."""
        if self._code is None:
            process, status = os.waitpid(self.pid, os.WNOHANG)
            if process:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self) -> int:
        """How it ended. TimeoutError where it hangs."""
        if self.poll() is None and hasattr(os, "pidfd_open"):
            with os.fdopen(os.pidfd_open(self.pid), "rb", 0, closefd=True) as handle:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(PATIENCE * 1000)
        until(lambda: self.poll() is not None, f"process {self.pid} did not end")
        assert self._code is not None
        return self._code

    @property
    def out(self) -> str:
        return self._written(0)

    @property
    def err(self) -> str:
        return self._written(1)

    def _written(self, stream: int) -> str:
        return os.pread(self._streams[stream].fileno(), 2**24, 0).decode()

    def _work(self, call: Callable[[], Any], stdin: int | None) -> None:
        code = ESCAPED
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._own_streams(stdin)
            one_thread()
            importlib.invalidate_caches()
            result = call()
            code = result if isinstance(result, int) else 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def _own_streams(self, stdin: int | None) -> None:
        """Those of pytest, which take what is printed, stay the parent's."""
        null = os.open(os.devnull, os.O_RDONLY)
        for number, place in enumerate((null if stdin is None else stdin, *(s.fileno() for s in self._streams))):
            os.dup2(place, number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # type: ignore[misc]  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, buffering=1)  # type: ignore[misc]  # noqa: SIM115


def one_thread() -> None:
    """A fork has none of its parent's threads, and would wait for them in its first parallel loop."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)


def until(condition: Callable[[], Any], problem: str = "it did not come about", pause: float = 0.005) -> None:
    """Waits for `condition`. TimeoutError where it stays false for as long as nothing takes."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(problem)
        time.sleep(pause)


def die_before(number: int) -> None:
    """Dies just before the `number`-th operation on files that Python announces (opening, renaming, removing ...)."""
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def is_running(process: int) -> bool:
    """Whether there is such a process; one that ended and was not waited for does not run."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    try:
        return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")
    except (FileNotFoundError, ProcessLookupError):
        return False
