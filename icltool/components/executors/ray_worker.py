"""What runs in the processes of Ray: makes the worker, hands units to it, and says in plain words what went wrong."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from icltool.contracts import LooksAhead, ReportsNotes
from icltool.contracts.executor import EndsWork
from icltool.errors import IclError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """An exception of a worker. `pickled` is the exception itself, where it survives the way."""

    line: str
    trace: str
    pickled: bytes | None
    mendable: bool

    def exception(self) -> BaseException:
        """The exception; one of the same words where it could not travel. Its cause shows where it was raised."""
        error: BaseException = RuntimeError(self.line)
        if self.pickled is not None:
            with suppress(Exception):
                # Written by `failure_of` in a worker of this very run, never read from a file.
                error = pickle.loads(self.pickled)
        error.__cause__ = RemoteError(self.trace)
        return error


class RemoteError(Exception):
    """Shows the traceback of another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def one_line(error: BaseException) -> str:
    """ "ValueError: what it says", on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def failure_of(error: Exception) -> Failure:
    """What is sent of an exception. An IclError arrives with its message and hint, whatever its class does to pickle."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    mendable = isinstance(error, IclError)
    data = _survives(error)
    if data is None and isinstance(error, IclError):
        data = pickle.dumps(IclError(error.message, error.hint))
    return Failure(one_line(error), trace, data, mendable)


def _survives(error: Exception) -> bytes | None:
    try:
        data = pickle.dumps(error)
        same = pickle.loads(data)
    except Exception:  # whatever the class's own constructor raises
        return None
    return data if type(same) is type(error) and str(same) == str(error) else None


class RayWorker(Generic[Unit, Result]):
    """The actor. Made without work, so that it is there at once; `load` makes the worker when it is this one's turn."""

    def __init__(self, folder: str) -> None:
        self._worker: Callable[[Unit], Result] | None = None
        with suppress(OSError):  # relative paths mean what they mean where the command runs, if the folder is here too
            os.chdir(folder)

    def where(self) -> str:
        """The id of the node that it runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def load(self, make_worker: Callable[[], Callable[[Unit], Result]]) -> Failure | None:
        try:
            self._worker = make_worker()
        except Exception as error:
            return failure_of(error)
        return None

    def work(self, unit: Unit, announced: bool, upcoming: tuple[Unit, ...]) -> tuple[Result] | Failure:
        """The result of the unit in a tuple. `upcoming` holds the unit that is likely to come next, if there is one."""
        worker = self._worker
        if worker is None:
            raise RuntimeError("a unit was sent to a worker that is not loaded")
        if isinstance(worker, LooksAhead):
            for ahead in upcoming if announced else (unit, *upcoming):
                with suppress(Exception):  # it will be raised again by the unit whose fault it is
                    worker.expect(ahead)
        try:
            return (worker(unit),)
        except Exception as error:
            return failure_of(error)

    def finish(self) -> list[str]:
        """What the worker has to say; it is closed."""
        worker = self._worker
        notes: list[str] = [str(note) for note in worker.notes] if isinstance(worker, ReportsNotes) else []
        if isinstance(worker, EndsWork):
            worker.close(True)
        return notes
