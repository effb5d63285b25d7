"""What a worker in another process, or on another machine, needs to find the files of the command."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from icltool.contracts import Executor, image_file
from icltool.contracts.executor import Shipment, Ships
from icltool.errors import ConfigError
from icltool.store.prepared import MOVED

Config = TypeVar("Config", bound=BaseModel)
Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: Environment variables of other libraries: where weights are stored, and whether they may be downloaded.
_LIBRARIES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "TORCH_HOME")
_WORKSPACE = "workspace"


@dataclass(frozen=True)
class WorkerContext:
    """The working directory of the command, environment variables that name folders, and, with --ship-data, what was sent: a
    part of the workspace in `shipment`, and the paths in it of further `files`, by their paths on the sender."""

    folder: str
    variables: Mapping[str, str]
    shipment: Shipment | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls, variables: Iterable[str] = ()) -> WorkerContext:
        """The context of this process, with these `variables` of the environment and those of other libraries."""
        named = (*variables, *_LIBRARIES)
        return cls(str(Path.cwd()), {name: os.environ[name] for name in named if name in os.environ})

    def enter(self, config: Config) -> Config:
        """Sets up this process and returns the configuration for it: changes to the working directory of the command, if it
        exists on this machine, and sets variables that are not set: a machine may have its weights in another folder."""
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)
        if str(Path.cwd()) != self.folder and Path(self.folder).is_dir():
            os.chdir(self.folder)
        if self.shipment is None:
            return config
        return config.model_copy(update={"workspace": self.shipment.local(_WORKSPACE)})

    def file(self, path: Path) -> Path:
        """The path of a file on this machine: that of the copy that was sent, or the same path."""
        if self.shipment is None or str(path) not in self.files:
            return path
        return self.shipment.local(_WORKSPACE) / self.files[str(path)]


@dataclass(frozen=True)
class MakeWorker(Generic[Config, Unit, Result]):
    """Makes a worker in its process, where the configuration is adapted to it."""

    worker: Callable[[Config], Callable[[Unit], Result]]
    config: Config
    context: WorkerContext

    def __call__(self) -> Callable[[Unit], Result]:
        return self.worker(self.context.enter(self.config))


@contextmanager
def worker_context(
    executor: Executor,
    dataset: Path,
    images: Iterable[str],
    embeddings: Iterable[Path] = (),
    files: Iterable[Path] = (),
    *,
    ship: bool,
    variables: Iterable[str],
) -> Iterator[WorkerContext]:
    """The context of workers (see `WorkerContext.here` for `variables`). With `ship`, the executor sends them the data set in
    the folder `dataset`, these images (references), embeddings and further files, as long as the `with` block lasts.

    Raises ConfigError if the executor cannot send files.
    """
    here = WorkerContext.here(variables)
    if not ship:
        yield here
        return
    if not isinstance(executor, Ships):
        raise ConfigError(f"--ship-data: {type(executor).__name__} cannot send files", "leave --ship-data out")
    with tempfile.TemporaryDirectory(prefix="icltool-ship-") as temporary:
        root = Path(temporary)
        sent = _laid_out(root, dataset, images, embeddings, files)
        yield WorkerContext(here.folder, here.variables, executor.ship({_WORKSPACE: root}), sent)


def _laid_out(
    root: Path, dataset: Path, images: Iterable[str], embeddings: Iterable[Path], files: Iterable[Path]
) -> dict[str, str]:
    """Makes a workspace of symbolic links in `root`; the paths in it of `files`."""
    folder = root / "datasets" / dataset.parent.name / dataset.name
    (folder / "images").mkdir(parents=True)
    for part in dataset.iterdir():
        if part.name != MOVED:
            (folder / part.name).symlink_to(part.resolve())
    moved = {}
    for number, image in enumerate(sorted({image_file(reference) for reference in images if reference})):
        if not Path(image).is_file():  # the worker that needs it reports it
            continue
        moved[image] = f"images/{number}{Path(image).suffix}"
        (folder / moved[image]).symlink_to(Path(image).resolve())
    (folder / MOVED).write_text(json.dumps(moved), encoding="utf-8")
    (root / "embeddings").mkdir()
    for file in embeddings:
        (root / "embeddings" / file.name).symlink_to(file.resolve())
    (root / "files").mkdir()
    sent = {str(file): f"files/{number}-{file.name}" for number, file in enumerate(dict.fromkeys(files))}
    for path, name in sent.items():
        (root / name).symlink_to(Path(path).resolve())
    return sent
