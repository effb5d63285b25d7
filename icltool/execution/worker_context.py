"""Where a command runs: what a worker in another process, or on another machine, needs to find the same files."""

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

#: Variables of other libraries that decide where weights lie and whether they may be fetched.
_LIBRARIES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "TORCH_HOME")
_WORKSPACE = "workspace"


@dataclass(frozen=True)
class WorkerContext:
    """The folder in which the command was given, the variables that name places, and what was sent from there: a part of the
    workspace in `shipment`, with further `files` by the paths that they have there."""

    folder: str
    variables: Mapping[str, str]
    shipment: Shipment | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls, variables: Iterable[str] = ()) -> WorkerContext:
        """The place of this process; `variables` of the environment are those that name places, beside other libraries'."""
        named = (*variables, *_LIBRARIES)
        return cls(str(Path.cwd()), {name: os.environ[name] for name in named if name in os.environ})

    def enter(self, config: Config) -> Config:
        """Makes relative paths mean in this process what they meant there, as far as the folder exists here too; the
        configuration to use here. Variables that this process has already stay as they are: a machine may have its weights
        elsewhere."""
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)
        if str(Path.cwd()) != self.folder and Path(self.folder).is_dir():
            os.chdir(self.folder)
        if self.shipment is None:
            return config
        return config.model_copy(update={"workspace": self.shipment.local(_WORKSPACE)})

    def file(self, path: Path) -> Path:
        """Where a file is here: what was sent, or the same path."""
        if self.shipment is None or str(path) not in self.files:
            return path
        return self.shipment.local(_WORKSPACE) / self.files[str(path)]


@dataclass(frozen=True)
class MakeWorker(Generic[Config, Unit, Result]):
    """Makes a worker with the configuration as it is meant there; travels to where it is made."""

    worker: Callable[[Config], Callable[[Unit], Result]]
    config: Config
    place: WorkerContext

    def __call__(self) -> Callable[[Unit], Result]:
        return self.worker(self.place.enter(self.config))


@contextmanager
def place_of_work(
    executor: Executor,
    dataset: Path,
    images: Iterable[str],
    embeddings: Iterable[Path] = (),
    files: Iterable[Path] = (),
    *,
    ship: bool,
    variables: Iterable[str],
) -> Iterator[WorkerContext]:
    """What workers are told of this place (see `WorkerContext.here` for `variables`). With `ship` it holds a copy of the data
    set in the folder `dataset`, of these images (references), embeddings, and further files; that lasts for the context.

    Raises ConfigError where the executor cannot send anything.
    """
    place = WorkerContext.here(variables)
    if not ship:
        yield place
        return
    if not isinstance(executor, Ships):
        raise ConfigError(f"--ship-data: {type(executor).__name__} sends no files", "leave --ship-data out")
    with tempfile.TemporaryDirectory(prefix="icltool-ship-") as temporary:
        root = Path(temporary)
        sent = _laid_out(root, dataset, images, embeddings, files)
        yield WorkerContext(place.folder, place.variables, executor.ship({_WORKSPACE: root}), sent)


def _laid_out(
    root: Path, dataset: Path, images: Iterable[str], embeddings: Iterable[Path], files: Iterable[Path]
) -> dict[str, str]:
    """A workspace of links; the paths below it of `files`."""
    folder = root / "datasets" / dataset.parent.name / dataset.name
    (folder / "images").mkdir(parents=True)
    for part in dataset.iterdir():
        if part.name != MOVED:
            (folder / part.name).symlink_to(part.resolve())
    moved = {}
    for number, image in enumerate(sorted({image_file(reference) for reference in images if reference})):
        if not Path(image).is_file():  # the worker that needs it will name it
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
