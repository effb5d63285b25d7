"""What libraries say while a command runs: under --verbose a line for each message, otherwise nothing. An IclWarning is no
library's: it is said either way.

All of it is caught here, around the run of a command, whichever library it comes from: warnings, log records on their way to
the screen, progress bars, and whatever is printed. A forked process inherits that; a new one inherits the
environment. Below Python stdout is taken away, which is free for the command's result then; stderr stays, because a crash
of the interpreter and the other processes of a distributed training report there.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO

from icltool.errors import IclWarning

#: Variables that silence new processes, unless the user has set them: Python's warnings, and torch's native ones.
_SILENT = {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}
#: Packages that print on behalf of others.
_CARRIERS = frozenset({"tqdm", "lightning_utilities", "typing_extensions", *sys.stdlib_module_names})


@contextmanager
def library_output(
    detail: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = None,
    passed: set[str] | None = None,
) -> Iterator[None]:
    """While the body runs, messages of libraries go to `detail` (nowhere without it), each once, as "library: message", and
    those of components (IclWarning) to `say`. `passed` holds what is not repeated, and grows.

    Whatever the command itself prints in the meantime must go to stderr as it was before.
    """
    messages = _Messages(detail, say, set() if passed is None else passed)
    with ExitStack() as stack:
        stack.enter_context(_environment({} if detail else _SILENT))
        stack.enter_context(_descriptor_apart(visible=detail is not None))
        stack.enter_context(_hooks(messages, (sys.stdout, sys.stderr)))
        for redirect, name in ((redirect_stdout, "stdout"), (redirect_stderr, "stderr")):
            if (stream := getattr(sys, name)) is not None:  # closed by the caller
                caught = _CaughtStream(messages, name, stream)
                stack.enter_context(redirect(caught))
                stack.callback(caught.release)
        yield


class _Messages:
    """Passes each message on once, with the name of the library that it comes from."""

    def __init__(
        self, detail: Callable[[str], None] | None, say: Callable[[str], None] | None, passed: set[str]
    ) -> None:
        self._detail, self._say, self._passed, self._process = detail, say, passed, os.getpid()

    def add(self, text: str, logger: str = "root") -> None:
        """`logger`: the name of the one that the message was logged by; libraries name theirs after themselves."""
        words = " ".join(text.split())
        if self._detail is None or not words:
            return
        self._pass(f"{_speaker() if logger == 'root' else logger.partition('.')[0]}: {words}", self._detail)

    def warn(self, warning: Warning | str) -> None:
        if isinstance(warning, IclWarning):
            self._pass(" ".join(str(warning).split()), self._say)
        else:
            self.add(str(warning))

    def _pass(self, line: str, on: Callable[[str], None] | None) -> None:
        if on is None or line in self._passed:
            return
        self._passed.add(line)
        if os.getpid() == self._process:
            on(line)
        else:  # forked: a lock of the screen that another thread held is never released here
            with suppress(OSError):
                os.write(2, f"{line}\n".encode())


def _speaker() -> str:
    """The package whose code is running, apart from this module and from what prints on behalf of others."""
    frame = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if module != __name__ and package not in _CARRIERS:
            return package
        frame = frame.f_back  # type: ignore[assignment]
    return "python"


class _CaughtStream(io.TextIOBase):
    """Stands for stdout or stderr: its lines are messages; of a progress bar, that is the last state.

    Libraries keep it beyond the command (the handler of a logger does): once released it is what sys has in its place.
    """

    def __init__(self, messages: _Messages, name: str, stream: TextIO) -> None:
        self._messages, self._name, self._stream = messages, name, stream
        self._caught = True
        self._own = threading.local()  # a line may be written in parts, by several threads at a time

    def write(self, text: str) -> int:
        if not self._caught:
            stream = getattr(sys, self._name)  # None while the interpreter ends
            return len(text) if stream is None else int(stream.write(text))
        *lines, rest = (getattr(self._own, "rest", "") + text).split("\n")
        self._own.rest = rest.rpartition("\r")[2]
        for line in lines:
            self._messages.add(line.rstrip("\r").rpartition("\r")[2])
        return len(text)

    def release(self) -> None:
        self._caught = False

    def flush(self) -> None:
        """Nothing waits."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def _hooks(messages: _Messages, screen: tuple[TextIO, TextIO]) -> Iterator[None]:
    """Catches warnings, and log records that a handler would write to `screen`, as messages without the handler's format.
    The crash of a thread still shows there."""
    show, emit, crashed = warnings.showwarning, logging.StreamHandler.emit, threading.excepthook

    def add_warning(message: Warning | str, *_: object, **__: object) -> None:
        messages.warn(message)

    def add_record(handler: logging.StreamHandler[TextIO], record: logging.LogRecord) -> None:
        stream = handler.stream
        if not isinstance(stream, _CaughtStream) and not any(stream is known for known in screen):
            emit(handler, record)
            return
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # it does not fit its arguments
            text = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        messages.add(f"{text} ({type(error).__name__}: {error})" if error else text, record.name)

    def show_crash(thread: threading.ExceptHookArgs) -> None:
        with redirect_stderr(screen[1]):
            crashed(thread)

    warnings.showwarning = add_warning
    logging.StreamHandler.emit = add_record  # type: ignore[method-assign, assignment]
    threading.excepthook = show_crash
    try:
        yield
    finally:
        warnings.showwarning = show
        logging.StreamHandler.emit = emit  # type: ignore[method-assign]
        threading.excepthook = crashed


@contextmanager
def _descriptor_apart(visible: bool) -> Iterator[None]:
    """What native code and child processes write to stdout goes to stderr, or nowhere."""
    if sys.stdout is not None:
        sys.stdout.flush()
    with ExitStack() as stack:
        with suppress(OSError):  # closed by the caller
            saved = os.dup(1)
            stack.callback(os.close, saved)
            target = os.dup(2) if visible else os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, target)
            os.dup2(target, 1)
            stack.callback(os.dup2, saved, 1)
        yield


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets those of the variables that are not set."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
