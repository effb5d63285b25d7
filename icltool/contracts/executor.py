"""Executors run units of work, on this process or on many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

Unit = TypeVar("Unit")
Result = TypeVar("Result")


@runtime_checkable
class Executor(Protocol):
    """Runs `work` on units. Results may come in any order; each carries its unit's key, and one caller writes them."""

    def run(self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]) -> Iterator[Result]:
        """Calls `make_worker` once per worker (it loads the model), then the worker on every unit."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the user should know: number of workers, devices."""
        ...
