"""What HDF5 artefacts have in common: identity, provenance, schema versions, and atomic writing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from icltool.errors import OtherVersionError, StoreError
from icltool.releases import __version__
from icltool.store.atomic import replace_file
from icltool.store.provenance import Provenance, moment

if TYPE_CHECKING:
    import h5py
    from _typeshed import WriteableBuffer

#: A block of rows of an artefact's columns, by data set name.
Columns: TypeAlias = dict[str, NDArray[Any]]

_CACHE_BYTES = 1 << 24
#: Integer attributes of schemas that may be 0.
_MAY_BE_NONE = ("total",)
_JSON = ("configuration", "plugins", "extra")
_BROKEN = (
    OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, EOFError, OverflowError, MemoryError,
    ZeroDivisionError,
)  # fmt: skip


@dataclass(frozen=True)
class Schema:
    """A kind of artefact: its name and version in the file, the noun for it, the command that creates it, and its own root
    attributes, which are integers except for `texts`."""

    name: str
    version: int
    noun: str
    command: str
    details: tuple[str, ...]
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """All root attributes of an artefact. `details` are the schema's own: texts and integers."""

    schema: Schema
    provenance: Provenance
    details: dict[str, str | int]
    created: str = ""
    icltool_version: str = ""

    def identity(self) -> dict[str, object]:
        """What must be equal for one run to resume another, JSON-ready."""
        return {
            "schema": self.schema.name,
            "schema_version": self.schema.version,
            "dataset_fingerprint": self.provenance.dataset_fingerprint,
            "seed": self.provenance.seed,
            **self.details,
            "configuration": json.loads(canonical_json(self.provenance.configuration)),
        }

    def fingerprint(self) -> str:
        """A hash of the identity, 32 hex characters."""
        return hashlib.blake2b(canonical_json(self.identity()).encode(), digest_size=16).hexdigest()

    def write(self, file: h5py.File, complete: bool) -> None:
        """Writes the root attributes into an open h5py file."""
        attributes: dict[str, str | int] = {
            "schema": self.schema.name,
            "schema_version": self.schema.version,
            "icltool_version": self.icltool_version or __version__,
            "created": self.created or moment(),
            "complete": complete,
            "dataset_fingerprint": self.provenance.dataset_fingerprint,
            "seed": self.provenance.seed,
            **{name: canonical_json(getattr(self.provenance, name)) for name in _JSON},
            **self.details,
        }
        for name, value in attributes.items():
            file.attrs[name] = value


def canonical_json(value: object) -> str:
    """One text for equal values: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(config: Mapping[str, object]) -> str:
    """A hash of a configuration's canonical JSON, 8 hex characters, for file names."""
    return hashlib.blake2b(canonical_json(dict(config)).encode(), digest_size=4).hexdigest()


class Difference(NamedTuple):
    """A key in which two identities differ, dotted for nested mappings, and its value in each."""

    key: str
    stored: object
    requested: object


def first_difference(stored: Mapping[str, object], requested: Mapping[str, object]) -> Difference | None:
    """The first key that differs, in the order of `requested`; None if there is none. A key missing on one side has the
    value "nothing" there.
    """
    for key in [*requested, *(k for k in stored if k not in requested)]:
        old, new = stored.get(key, "nothing"), requested.get(key, "nothing")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = first_difference(old, new)
            if inner is not None:
                return inner._replace(key=f"{key}.{inner.key}")
        elif old != new or type(old) is not type(new):
            return Difference(key, old, new)
    return None


def check_identity(
    path: Path, stored: Mapping[str, object], requested: Mapping[str, object], what: str = "the file"
) -> None:
    """Raises StoreError with the first differing key and both values unless the identities are equal."""
    difference = first_difference(stored, requested)
    if difference is None:
        return
    key, old, new = difference
    if key == "dataset_fingerprint":
        raise StoreError(
            f"{path} was made from another data set: dataset_fingerprint is {old!r} in {what}, {new!r} in this run",
            "prepare that data set again, use another workspace, or overwrite the file with --overwrite",
        )
    raise StoreError(
        f"{path} was made with different options: {key} is {old!r} in {what}, {new!r} in this run",
        "use the same options, or overwrite the file with --overwrite",
    )


@contextlib.contextmanager
def reading(path: Path, schema: Schema) -> Iterator[None]:
    """Turns any exception of h5py for a damaged file into a StoreError that names it."""
    try:
        yield
    except _BROKEN as error:
        raise _damaged(path, schema) from error


def _damaged(path: Path, schema: Schema) -> StoreError:
    return StoreError(
        f"{path} is truncated or damaged",
        f"remove it and run `{schema.command}` again, or add --overwrite to that command",
    )


def open_h5(path: Path, schema: Schema) -> tuple[h5py.File, Header]:
    """(h5py file opened for reading, its header). StoreError if it is missing, not HDF5, truncated, or of another schema.
    Artefacts are only ever replaced as a whole, so HDF5's own file locks, which some network file systems lack, are off.
    """
    import h5py

    if not path.exists():
        raise StoreError(f"{path} does not exist", f"run `{schema.command}`")
    if path.is_dir() or not os.access(path, os.R_OK):
        raise StoreError(
            f"{path} is a folder, or you lack permission to read it",
            f"{schema.noun} are a file made by `{schema.command}`",
        )
    with reading(path, schema):
        if not h5py.is_hdf5(path):
            raise StoreError(
                f"{path} is not an HDF5 file, or its beginning is damaged",
                f"give another file, or run `{schema.command}` again",
            )
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
    try:
        with reading(path, schema):
            return file, _read_header(path, schema, file)
    except BaseException:
        file.close()
        raise


class ForeignFileError(StoreError):
    """An HDF5 file that icltool did not write."""


def _read_header(path: Path, schema: Schema, file: h5py.File) -> Header:
    attributes = dict(file.attrs.items())
    name = attributes.get("schema")
    if not isinstance(name, str):
        raise ForeignFileError(f"{path} was not written by icltool: it has no schema", f"run `{schema.command}`")
    if name != schema.name:
        raise StoreError(f"{path} holds {name}, not {schema.name}", f"{schema.noun} are made by `{schema.command}`")
    version = int(attributes["schema_version"])
    if version > schema.version:
        raise OtherVersionError(
            f"{path} was written by a newer icltool: {name} version {version}, this one reads {schema.version}",
            "update icltool",
        )
    if version < schema.version:
        raise OtherVersionError(
            f"{path} was written by an older icltool: {name} version {version}, this one reads {schema.version}",
            f"run `{schema.command}` with --overwrite",
        )
    stored = {key: json.loads(attributes[key]) for key in _JSON}
    provenance = Provenance(
        dataset_fingerprint=str(attributes["dataset_fingerprint"]), seed=int(attributes["seed"]), **stored
    )
    own = {key: attributes[key] for key in schema.details}
    details: dict[str, str | int] = {k: v if isinstance(v, str) else int(v) for k, v in own.items()}
    if any(isinstance(details[name], str) != (name in schema.texts) for name in details) or any(
        isinstance(value, int) and value < (name not in _MAY_BE_NONE) for name, value in details.items()
    ):
        raise ValueError(f"root attributes {details}")  # the caller reports the file as damaged
    return Header(schema, provenance, details, str(attributes["created"]), str(attributes["icltool_version"]))


def count_rows(path: Path, schema: Schema, file: h5py.File, columns: Mapping[str, tuple[int, ...]]) -> int:
    """The number of rows in the columns of an open file; `columns` is name -> shape of a row. StoreError if a column is
    missing, has another shape, or is shorter than the others.
    """
    with reading(path, schema):
        shapes = {name: tuple(file[name].shape) for name in columns}
    rows = {shape[:1] for shape in shapes.values()}
    if len(rows) != 1 or any(shapes[name][1:] != shape for name, shape in columns.items()):
        raise _damaged(path, schema)
    return int(rows.pop()[0])


def create_column(
    file: h5py.File, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], block_rows: int
) -> None:
    """A data set of rows, with checksums, suited to reading `block_rows` at a time."""
    file.create_dataset(
        name, shape, dtype, maxshape=(None, *shape[1:]), chunks=(block_rows, *shape[1:]), fletcher32=True
    )


@contextlib.contextmanager
def create_h5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yields (an empty h5py file to fill, a function to call now and then, which raises a pending write error). On success
    the file replaces `path` atomically. Raises StoreError as `writing` does. Ctrl-C and SIGTERM wait for that function, or
    for the end.
    """
    import h5py

    with _signals_wait() as act, replace_file(path) as temporary, _Sink(temporary) as sink:

        def check() -> None:
            sink.check()
            act()

        # version 1.8 of the format lifts the limit of 64 KiB on attributes (long configurations)
        with h5py.File(sink, "w", libver=("v108", "v110"), rdcc_nbytes=_CACHE_BYTES) as file:
            yield file, check
        sink.check()


@contextlib.contextmanager
def _signals_wait() -> Iterator[Callable[[], None]]:
    """Yields a function that delivers the signals received within the context so far; the rest are delivered at its end.

    A handler's exception is raised in whatever Python code is running. If HDF5 called that code (`_Sink`), the exception is
    lost or crashes the process.
    """
    if threading.current_thread() is not threading.main_thread():  # other threads receive no signals
        yield lambda: None
        return
    waiting: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def act() -> None:
        while waiting:
            number = waiting.pop(0)
            handler = handlers[signal.Signals(number)]
            assert callable(handler)
            handler(number, None)

    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, lambda received, _: waiting.append(received))
    try:
        yield act
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        act()


class _Sink:
    """The file that HDF5 writes to.

    HDF5 cannot close a file whose blocks it cannot write: it keeps the descriptor and crashes the process at exit. So the
    sink stores the first error and drops later writes, and `check` raises the error outside of HDF5.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.close()

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) or b""

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._file.readinto(buffer) or 0

    def write(self, data: bytes | memoryview) -> int:
        if self._error is None:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
            except OSError as error:
                self._error = error
        return len(data)

    def truncate(self, size: int) -> int:
        if self._error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self._error = error
        return size

    def flush(self) -> None:
        pass
