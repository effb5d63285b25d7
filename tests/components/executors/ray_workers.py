"""Workers of the tests of executors in other processes: they tell where they are, and fail when they are told to."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icltool.components.executors.shipping import Shipped
from icltool.errors import ConfigError


def node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def first(folder: Path, name: str) -> bool:
    """Whether nobody asked before."""
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class Done:
    """A result, and where it comes from."""

    unit: str
    pid: int
    node: str
    announced: tuple[str, ...]


@dataclass
class Worker:
    """Units are words. "kill …" kills the process at the first try, "once …" raises at it, "bad …" always; "slow …" takes a
    while. A file for each load says when it was, and on which node; one for each close whether it was finished; one that a unit
    was begun."""

    folder: Path
    announced: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ("the session's own note",)

    def expect(self, unit: str) -> None:
        self.announced.append(unit)

    def __call__(self, unit: str) -> Done:
        kind = unit.partition(" ")[0]
        if kind == "kill" and first(self.folder, unit):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "bad" or (kind == "once" and first(self.folder, unit)):
            raise ValueError(f"{kind}\nis not good")
        (self.folder / "begun").touch()
        time.sleep(0.5 if kind == "slow" else 0.05)
        return Done(unit, os.getpid(), node(), tuple(self.announced))

    def close(self, finished: bool) -> None:
        (self.folder / f"closed-{os.getpid()}").write_text(str(finished))


@dataclass(frozen=True)
class Make:
    """Makes a Worker; loading takes a while."""

    folder: Path
    seconds: float = 0.3

    def __call__(self) -> Worker:
        begun = time.time()
        time.sleep(self.seconds)
        (self.folder / f"load-{os.getpid()}").write_text(f"{node()} {begun} {time.time()}")
        return Worker(self.folder)


@dataclass(frozen=True)
class Refuse:
    """A make_worker that fails: "config", "value", or "kill"."""

    folder: Path
    how: str

    def __call__(self) -> Any:
        (self.folder / f"tried-{os.getpid()}").touch()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "config":
            raise ConfigError("no such model", "give another one")
        raise ValueError("broken\nweights")


@dataclass(frozen=True)
class WithoutImages:
    """Makes a Worker; on the node `broken` it raises at every unit, or (`how` "load") cannot be made."""

    folder: Path
    broken: str
    how: str = "unit"

    def __call__(self) -> Any:
        here = node()
        if here != self.broken:
            return Worker(self.folder)
        if self.how == "load":
            while not (self.folder / "begun").exists():  # others work
                time.sleep(0.05)
            raise ConfigError("no weights on this machine", "put them there")

        def work(unit: str) -> Done:
            (self.folder / f"spoilt-{time.time_ns()}-{os.getpid()}").touch()
            raise FileNotFoundError("no images")

        return work


@dataclass(frozen=True)
class ReadShipped:
    """Reads what was shipped; results are (node, path, inode, text, threads, process)."""

    shipped: Shipped

    def __call__(self) -> Any:
        file, folder = self.shipped.local("file"), self.shipped.local("folder")

        def work(unit: str) -> tuple[str, str, int, str, str, int]:
            time.sleep(0.05)
            text = file.read_text() + str((folder / "deep" / "inside.bin").stat().st_size)
            return node(), str(file), file.stat().st_ino, text, threads(), os.getpid()

        return work


def threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", "")
