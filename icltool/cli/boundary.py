"""The error boundary: what the user can mend is one line and a hint; anything else is a bug and shows its traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import typer

from icltool.errors import IclError

if TYPE_CHECKING:
    from typer._click.exceptions import ClickException, UsageError

#: The base classes of Typer's own errors, wherever this version of Typer keeps them.
_USAGE_ERROR: type[UsageError] = typer.BadParameter.__mro__[1]
_CLICK_ERROR: type[ClickException] = _USAGE_ERROR.__mro__[1]
INTERRUPTED = "interrupted; what was finished is kept - run the same command to go on"


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread so that files are closed as after Ctrl-C."""


def guarded(call: Callable[[], object]) -> int:
    """Runs `call` and turns whatever escapes into a message on stderr and an exit code."""
    _open_streams()
    try:
        with _sigterm_interrupts():
            call()
            sys.stdout.flush()
    except typer.Exit as stop:
        return stop.exit_code
    except Terminated:
        _say(INTERRUPTED)
        return 143
    except (KeyboardInterrupt, typer.Abort):
        _say(INTERRUPTED)
        return 130
    except BrokenPipeError:
        _silence_streams()
        return 141
    except IclError as error:
        report(error.message, error.hint)
        return error.exit_code
    except _CLICK_ERROR as error:
        _report_usage(error)
        return 2
    except OSError as error:
        if not _stdout_fails():
            return _report_other(error)
        report(f"what is printed cannot be written: {error.strerror}", "send it elsewhere, or free some space")
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


#: Characters of an error or a hint that are shown, at most: a value that it names may be as long as a file.
_MOST_SHOWN = 1200


def _shortened(text: str) -> str:
    """The text on one line; of a long one the beginning and the end."""
    line = " ".join(text.split())
    if len(line) <= _MOST_SHOWN:
        return line
    half = _MOST_SHOWN // 2
    return f"{line[:half]} … ({len(line) - _MOST_SHOWN:,} characters) … {line[-half:]}"


#: What other harnesses call our options.
_ELSEWHERE = {
    "limit": "--test-size", "num_fewshot": "--shots", "n_shot": "--shots", "tasks": "--task", "output_path": "--workspace",
    "model_args": "--model-option", "gen_kwargs": "--max-new-tokens", "pretrained": "--model-path", "metrics": "--metric",
    "methods": "--method", "seeds": "--seed", "instruction": "--prompt-style", "trust_code": "--trust-remote-code",
}  # fmt: skip


@runtime_checkable
class _UnknownOption(Protocol):
    """The error of an option that is not known."""

    option_name: str
    possibilities: Sequence[str] | None


def _report_usage(error: ClickException) -> None:
    """Typer's own errors, in the same style; the hint names the help of the command concerned."""
    context = error.ctx if isinstance(error, _USAGE_ERROR) else None
    hint = f"see `{context.command_path} --help`" if context is not None else None
    if isinstance(error, _UnknownOption) and error.possibilities is not None:
        ours = _ELSEWHERE.get(error.option_name.lstrip("-").replace("-", "_"))
        possible = [ours] if ours else error.possibilities
        text = f"no such option: {error.option_name}" + (f"; did you mean {' or '.join(possible)}?" if possible else "")
    else:
        text = error.format_message().strip().rstrip(".")
    report(text[:1].lower() + text[1:], hint)


def _report_other(error: Exception) -> int:
    """A validation error names its option, and memory may run out; anything else is a bug."""
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
        report(str(error)[:1].lower() + str(error)[1:], "the link leads to itself: give the file")
        return 2
    traceback.print_exception(error)
    return 1


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises Terminated while the body runs. Signals belong to the main thread; elsewhere nothing changes."""
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
    """A stream that whoever started the command has closed (`>&-`) leads nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123


def _stdout_fails() -> bool:
    """Whether it is standard output that cannot be written: what is left in its buffer still cannot."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _silence_streams() -> None:
    """After a broken pipe the interpreter must not write at exit once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _red(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
    return text if plain else f"\x1b[1;31m{text}\x1b[0m"
