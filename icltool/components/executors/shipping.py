"""Files for workers on machines without a shared disk: once through Ray's object store, unpacked once on each node."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icltool.components.executors.ray_folders import LOCKS, hold, remove_unused
from icltool.errors import DataError, StoreError
from icltool.store.locking import held

#: Bytes of one object: what the sender and each receiver hold in memory beside the store.
PIECE = 64 << 20
_FOLDER = "icltool-shipped-"
#: Seconds that nodes have to remove what they unpacked, and that the fetch of a piece may take without an answer.
_SWEEPS, _FETCHES = 10.0, 600.0


@dataclass(frozen=True)
class Member:
    """A file (or a folder without files: `size` None), by its path below the folder of its name."""

    path: str
    size: int | None


@dataclass(frozen=True)
class Parcel:
    """One name: its files, one after the other in `pieces`. `top` is the path of what was named in the parcel's folder."""

    source: str
    top: str
    members: tuple[Member, ...]
    pieces: tuple[Any, ...]


@dataclass(frozen=True)
class Shipped:
    """What was shipped; travels to workers in what makes them. On the node `home` the files are where they always were."""

    token: str
    home: str
    parcels: Mapping[str, Parcel]
    here_only: bool = False
    _held: list[int] = field(default_factory=list, compare=False, repr=False)

    def local(self, name: str) -> Path:
        """The file or folder of this name on the machine that this is called on, to be read only.

        The first call on a node fetches and unpacks it, others wait. Raises StoreError where that cannot be done.
        """
        parcel = self.parcels[name]
        node = _own_node()
        if self.here_only or node in ("", self.home):
            return Path(parcel.source)
        place = folder_of(self.token, node)
        try:
            self._hold(place)
            remove_unused(
                place.parent, _FOLDER
            )  # whose workers are all gone, without their run having cleared them away
            number = list(self.parcels).index(name)
            target = place / str(number)
            with held(place / f"{number}.lock", wait=float("inf")):
                if not target.exists():
                    part = place / f"{number}.part"
                    shutil.rmtree(part, ignore_errors=True)
                    part.mkdir()
                    unpack(parcel.members, _fetched(parcel), part)
                    part.rename(target)
        except OSError as error:
            raise StoreError(
                f"{name} cannot be unpacked into {place}: {error.strerror or error}",
                "the variable TMPDIR of the machine's Ray names another folder",
            ) from error
        return target / parcel.top

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_held": []}

    def _hold(self, place: Path) -> None:
        """Marks the folder as in use for as long as this process lives: the system lets go of the lock at its end."""
        while LOCKS and not self._held:
            place.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):  # somebody swept the folder up before it was held
                handle = hold(place)
                if handle is not None:
                    self._held.append(handle)
        place.mkdir(mode=0o700, exist_ok=True)


def ship_files(paths: Mapping[str, Path], home: str, here_only: bool = False) -> Shipped:
    """Puts files and folders into the object store, piece after piece. `home` is the node that they are on; `here_only`:
    there is no other, and nothing is copied.

    Raises DataError where one is missing, or changes meanwhile.
    """
    import ray

    parcels = {}
    for name, path in paths.items():
        source = path.resolve()
        if not source.exists():
            raise DataError(f"{path} cannot be shipped: it does not exist", "see --ship-data")
        members = tuple(members_of(source))
        pieces = () if here_only else tuple(ray.put(piece) for piece in pieces_of(source, members))
        parcels[name] = Parcel(str(source), source.name, members, pieces)
    return Shipped(uuid.uuid4().hex, home, parcels, here_only)


def folder_of(token: str, node: str) -> Path:
    """Where a node unpacks; the node is in the name, because several can be on one machine."""
    return Path(tempfile.gettempdir()) / f"{_FOLDER}{token[:12]}-{node[:12]}"


def sweep(shipped: Sequence[Shipped], nodes: Sequence[str]) -> None:
    """Has the nodes remove what they unpacked; those that do not answer in time keep it until the next run."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    refs = []
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(_remove).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        refs.append(task.remote([str(folder_of(s.token, node)) for s in shipped]))
    if refs:
        ray.wait(refs, num_returns=len(refs), timeout=_SWEEPS)


def _remove(folders: Sequence[str]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _own_node() -> str:
    """The id of the node that this process works on; none outside Ray."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def members_of(source: Path) -> Iterator[Member]:
    """Files below a folder, or the file, with paths that begin with its name."""
    if source.is_file():
        yield Member(source.name, source.stat().st_size)
        return
    for folder, folders, files in os.walk(source, followlinks=True):
        folders.sort()
        inside = Path(source.name) / Path(folder).relative_to(source)
        if not files and not folders:
            yield Member(str(inside), None)
        for file in sorted(files):
            yield Member(str(inside / file), (Path(folder) / file).stat().st_size)


def pieces_of(source: Path, members: Sequence[Member], size: int = PIECE) -> Iterator[bytes]:
    """The bytes of all files, one after the other, in pieces of `size` bytes; the last may be shorter."""
    piece = bytearray()
    for member in members:
        missing = member.size or 0
        if member.size is None:
            continue
        path = source.parent / member.path
        with path.open("rb") as stream:
            while missing:
                block = stream.read(min(missing, size - len(piece)))
                if not block:
                    raise DataError(f"{path} became shorter while it was shipped", "run the command again")
                piece += block
                missing -= len(block)
                if len(piece) == size:
                    yield bytes(piece)
                    piece.clear()
    if piece:
        yield bytes(piece)


def unpack(members: Sequence[Member], pieces: Iterator[bytes], folder: Path) -> None:
    """Writes the files again, below `folder`."""
    rest = memoryview(b"")
    for member in members:
        path = folder / member.path
        if member.size is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        missing = member.size
        with path.open("wb") as stream:
            while missing:
                rest = rest if len(rest) else memoryview(next(pieces))
                stream.write(rest[:missing])
                taken = min(missing, len(rest))
                rest, missing = rest[taken:], missing - taken


def _fetched(parcel: Parcel) -> Iterator[bytes]:
    import ray

    for piece in parcel.pieces:
        try:
            yield ray.get(piece, timeout=_FETCHES)
        except ray.exceptions.RayError as error:
            raise StoreError(
                f"part of the shipped copy of {parcel.source} is lost ({type(error).__name__})",
                "what is shipped lasts for one run: ship it again; or put it on a disk that all machines share",
            ) from error
