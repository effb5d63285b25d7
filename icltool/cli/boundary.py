"""The error boundary: an error that the user can correct is one line and a hint; any other is a bug and shows its traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from icltool.errors import IclError, closest

if TYPE_CHECKING:
    from typer._click import Context

INTERRUPTED = "interrupted; finished work is kept: run the same command to resume"


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread so that files are closed as after Ctrl-C."""


def guarded(call: Callable[[], object]) -> int:
    """Runs `call` and turns every exception into a message on stderr and an exit code."""
    _open_streams()
    try:
        with _sigterm_interrupts():
            call()
            sys.stdout.flush()
    except Terminated:
        _say(INTERRUPTED)
        return 143
    except KeyboardInterrupt:
        _say(INTERRUPTED)
        return 130
    except BrokenPipeError:
        _silence_streams()
        return 141
    except IclError as error:
        report(error.message, error.hint)
        return error.exit_code
    except OSError as error:
        if not _stdout_fails():
            return _report_other(error)
        report(f"standard output cannot be written: {error.strerror}", "redirect it elsewhere, or free some space")
        _silence_streams()
        return 2
    except Exception as error:
        return _report_other(error)
    return 0


def report(message: str, hint: str | None = None) -> None:
    """Prints "error: …" in red and "hint: …", each on one line, on stderr."""
    _say(f"{_red('error:')} {_shortened(message)}")
    if hint:
        _say(f"hint: {_shortened(hint)}")


#: The most characters that are printed of an error or a hint: a value that it names may be as long as a file.
_LONGEST = 1200


def _shortened(text: str) -> str:
    """The text on one line; of a long one the beginning and the end."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[:half]} … ({len(line) - _LONGEST:,} characters) … {line[-half:]}"


#: Names of options in other tools, and ours where its name is not similar.
_ELSEWHERE = {
    "limit": "--test-size", "num-fewshot": "--shots", "model-args": "--model-option", "gen-kwargs": "--max-new-tokens",
    "pretrained": "--model-path", "instruction": "--prompt-style",
}  # fmt: skip


@runtime_checkable
class _TyperError(Protocol):
    """An error of Typer's, wherever its release keeps the class."""

    def format_message(self) -> str: ...


@runtime_checkable
class _UsageError(_TyperError, Protocol):
    """An error in the arguments of a command."""

    ctx: Context | None


@runtime_checkable
class _UnknownOptionError(_UsageError, Protocol):
    """The error of an option that is not known, unlike others with the name of an option."""

    option_name: str
    possibilities: object


def _report_usage(error: _TyperError) -> None:
    """Typer's own errors, in the same style; the hint names the help of the command concerned."""
    context = error.ctx if isinstance(error, _UsageError) else None
    flag, text = "--help", error.format_message().strip().rstrip(".")
    if isinstance(error, _UnknownOptionError):
        similar = _similar_option(error.option_name, context)
        text = f"no such option: {error.option_name}" + (f"; did you mean {similar}?" if similar else "")
        flag = "--help" if similar else "--help-all"
    report(text[:1].lower() + text[1:], f"see `{context.command_path} {flag}`" if context is not None else None)


def _similar_option(name: str, context: Context | None) -> str | None:
    """The option of the command that an unknown one probably means."""
    if context is None:
        return None
    names: dict[str, str] = {}  # every long flag, without its dashes -> the one that the help lists
    for parameter in context.command.get_params(context):
        for flags in (parameter.opts, parameter.secondary_opts):
            long = [flag for flag in flags if flag.startswith("--")]
            names |= {flag.removeprefix("--"): long[0] for flag in long}
    name = name.lstrip("-")
    if (flag := _ELSEWHERE.get(name)) in names.values():
        return flag
    similar = closest(name, names)
    return names[similar] if similar else None


def _report_other(error: Exception) -> int:
    """Typer's own errors; a validation error, which names its option; memory that ran out. Anything else is a bug."""
    if (typer := sys.modules.get("typer")) is not None:
        if isinstance(error, typer.Exit):
            return int(error.exit_code)
        if isinstance(error, typer.Abort):
            _say(INTERRUPTED)
            return 130
    if isinstance(error, _TyperError):
        _report_usage(error)
        return 2
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(error, pydantic.ValidationError):
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or error.title
        allowed = (problem.get("ctx") or {}).get("expected")
        text = f"expected {allowed}" if allowed else str(problem["msg"])
        report(f"{place}: {text}, not {problem.get('input')!r}", None)
        return 2
    if isinstance(error, MemoryError):
        report(
            f"memory ran out{f': {error}' if str(error) else ''}",
            "a smaller --batch-size or --image-cache-mb, or a smaller model, needs less",
        )
        return 2
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # Path.resolve before Python 3.13
        report(str(error)[:1].lower() + str(error)[1:], "the link leads to itself: name the file")
        return 2
    traceback.print_exception(error)
    return 1


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises Terminated while the body runs in the main thread, the only one that handles signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_streams() -> None:
    """Opens /dev/null for each standard stream that the caller has closed (`>&-`)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123


def _stdout_fails() -> bool:
    """Whether standard output cannot be written: flushing its buffer fails again."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _silence_streams() -> None:
    """Keeps the interpreter from writing to a broken pipe again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _red(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
    return text if plain else f"\x1b[1;31m{text}\x1b[0m"
