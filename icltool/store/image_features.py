"""Image features that are kept between runs: one HDF5 file per model, weights, precision and preprocessing.

/image   the reference of each image (an absolute path, in a zip archive ARCHIVE/MEMBER, and regions behind it),
         variable-length bytes [N]
/stamp   int64 [N, 2]: bytes and modification time in ns of the image file, or of its archive, when it was read
/dtype   torch's name of the features' type [N]; /shape int64 [N, 8], -1 behind the last dimension
/offset, /length   int64 [N]: where the features lie in /data, in bytes; /crc uint32 [N], their CRC-32
/data    uint8: the features, little-endian, one image after the other

A journal beside it holds what was added since the file was last written. A cache never stops a run: a problem becomes a
note, and data that cannot be trusted are not read.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from icltool.contracts import Model, SupportsImageCache, archive_and_member, image_file
from icltool.errors import StoreError
from icltool.store.artefact import Header, Schema, check_identity, create_h5, digest, open_h5, reading
from icltool.store.atomic import remove_leftovers, writing
from icltool.store.journal import Entry, Journal, journal_path, remove_journal
from icltool.store.locking import locked
from icltool.store.provenance import Provenance, releases
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    import h5py
    from torch import Tensor

SCHEMA = Schema(
    "icltool.image-features",
    1,
    "image features",
    "icltool generate --image-cache-disk",
    ("model", "model_fingerprint"),
    texts=("model", "model_fingerprint"),
)
#: Images, and bytes, per write.
_IMAGES, _BYTES = 256, 64 * 2**20
#: At the end of a run the journal is merged into a file below this many bytes, or if the journal is a fourth of it;
#: else both stay.
_SMALL = 256 * 2**20
_DIMENSIONS = 8
_HEAD = struct.Struct("<HqqI20sB")  # bytes of the path, stamp, CRC-32, type, dimensions; path, shape and data follow

Stamp = tuple[int, int]


class _Row(NamedTuple):
    """An image's features: their place in the file or the journal, and their type and shape."""

    stamp: Stamp
    dtype: str
    shape: tuple[int, ...]
    crc: int
    journaled: bool
    offset: int
    length: int


def open_image_features(
    workspace: Workspace, model: str, fingerprint: str, byte_limit: int = 64 * 2**30
) -> ImageFeatureFile:
    """The file for the model with this name and fingerprint (of weights, precision and preprocessing). Other releases of
    the libraries that resize images have their own files.
    """
    provenance = Provenance(dict(releases("transformers", "pillow")), "")
    header = Header(SCHEMA, provenance, {"model": model, "model_fingerprint": fingerprint})
    return ImageFeatureFile(workspace.image_features_file(model, digest(header.identity())), header, byte_limit)


def image_features_for(
    model: Model | None, name: str, workspace: Path, megabytes: int = 64 * 2**10
) -> ImageFeatureFile | None:
    """`open_image_features` for a model that can encode an image once; None for others."""
    if not isinstance(model, SupportsImageCache):
        return None
    return open_image_features(Workspace(workspace), name, model.fingerprint(), megabytes * 2**20)


class ImageFeatureFile:
    """Features by image path. An image that has changed is another image; features that are damaged are computed again.

    Opening takes the writer's lock; if another process holds it, features are read and none are added. A file of another
    schema, model or library, or a damaged one, is replaced. `notes` has a line about each of these. SIGKILL loses at most
    the features that were added last. A thread writes new features in batches, until file and journal together have
    `byte_limit` bytes.
    """

    def __init__(self, path: Path, header: Header, byte_limit: int) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._header = header
        self._limit = byte_limit
        self._rows: dict[bytes, _Row] = {}
        self._h5: h5py.File | None = None
        self._data: h5py.Dataset | None = None
        self._journal: Journal | None = None
        self._size = 0
        self._held: dict[str, Tensor] = {}
        self._writing: dict[str, Tensor] = {}  # the batch that the thread is writing
        self._held_bytes = 0
        self._seen: dict[str, Stamp | None] = {}
        self._file_lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, "icltool-image-features")
        self._written: Future[None] | None = None
        self._open = contextlib.ExitStack()
        self._writable = self._locked()
        self._stopped = not self._writable  # no more features are accepted
        try:
            self._load_or_start()
        except StoreError as error:  # for example, the disk is full
            self._writable, self._stopped = False, True
            self._forget()
            hint = f" ({error.hint})" if error.hint else ""
            self._note(f"{error.message}: image features are neither read nor stored{hint}")

    def __len__(self) -> int:
        """Images whose features are in file and journal."""
        return len(self._rows)

    def holds(self, path: str) -> bool:
        """Whether the features of this image, unchanged, are stored."""
        if path in self._held or path in self._writing:
            return True
        row, stamp = self._rows.get(_key(path)), _stamp(path)
        if row is not None and row.stamp == stamp:
            return True
        if self._writable:
            self._seen.setdefault(path, stamp)
        return False

    def get(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """The features of those images that are stored: tensors on the CPU, or on the device that they came from."""
        fresh = {**self._writing, **self._held}
        by_path = {path: fresh[path] for path in paths if path in fresh}
        stored = [(path, self._rows[_key(path)]) for path in paths if path not in by_path and self.holds(path)]
        for path, row in sorted(stored, key=lambda pair: pair[1].offset):
            features = _tensor(self._bytes(row), row)
            if features is None:
                self._rows.pop(_key(path), None)
                self._note(f"{self.path} is damaged in places: the features of such images are computed again")
            else:
                by_path[path] = features
        return by_path

    def put(self, features: Mapping[str, Tensor]) -> None:
        """Adds features, tensors on any device. An image that has changed since it was first looked up is left out."""
        if self._stopped:
            return
        for path, tensor in features.items():
            stamp = self._seen.get(path) or _stamp(path)
            if stamp is not None and stamp == _stamp(path) and tensor.dim() <= _DIMENSIONS:
                self._held[path] = tensor
                self._seen[path] = stamp
                self._held_bytes += tensor.numel() * tensor.element_size()
        if len(self._held) >= _IMAGES or self._held_bytes >= _BYTES:
            self._write_held()

    def close(self, finished: bool = True) -> None:
        """Writes the pending features. After a completed run, the journal is merged into the file if that is worth it."""
        with self._open:
            with self._noting():
                self._write_held()
                self._wait()
                self._threads.shutdown()
                if finished and self._writable and self._is_worth_it():
                    self._compact()
            self._writable, self._stopped = False, True
            self._rows.clear()
            with self._noting():
                self._close_files()

    def _locked(self) -> bool:
        with self._noting(" — features are read from it, and none are added"):
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open.enter_context(locked(self.path))
            return True
        return False

    def _load_or_start(self) -> None:
        if not self._writable:
            try:
                self._load()
            except StoreError:
                self._forget()
            return
        with writing(self.path):
            remove_leftovers(self.path)
        if self.path.exists():
            try:
                self._load()
                return
            except StoreError as error:
                self._forget()
                self._note(f"{error.message}: it is started again")
        self._write_file([])
        remove_journal(journal_path(self.path))  # of a file that was removed or cannot be trusted
        self._load()

    def _load(self) -> None:
        """Opens the journal, then the file: if another process merges them meanwhile, rows are seen twice and never
        missed."""
        self._journal = self._open_journal()
        self._h5, header = open_h5(self.path, SCHEMA)
        with reading(self.path, SCHEMA):
            check_identity(self.path, header.identity(), self._header.identity())
            self._rows.update(_stored_rows(self._h5))
            self._data = self._h5["data"]
        self._size = self.path.stat().st_size
        if self._journal is not None:
            for entry in self._journal.entries:
                key, row = _journal_row(self._journal, entry)
                self._rows[key] = row
                self._size += row.length

    def _open_journal(self) -> Journal | None:
        place = journal_path(self.path)
        try:
            journal = Journal(place, writable=self._writable)
            if journal.identity == self._header.identity():
                return journal
            journal.close()
        except FileNotFoundError:
            return None
        except StoreError as error:
            if not place.is_file():
                return None
            self._note(error.message)
        if self._writable:
            remove_journal(place)
        return None

    def _bytes(self, row: _Row) -> bytes | None:
        """The stored bytes; None if they are damaged."""
        try:
            with self._file_lock:
                if not row.journaled:
                    assert self._data is not None
                    content = self._data[row.offset : row.offset + row.length].tobytes()
                else:
                    assert self._journal is not None
                    content = self._journal.read(Entry(row.offset, row.length))
        except (OSError, RuntimeError, ValueError, StoreError):
            return None
        return content if len(content) == row.length and zlib.crc32(content) == row.crc else None

    def _write_held(self) -> None:
        """Hands the pending features to the thread, once it has written the previous batch."""
        self._wait()
        held, self._held, self._held_bytes = self._held, {}, 0
        if not held or self._stopped:
            return
        records = []
        for path, tensor in held.items():
            stamp = self._seen.pop(path)
            assert stamp is not None
            flat = tensor.detach().contiguous().cpu()
            records.append((_key(path), stamp, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), flat))
        self._writing = held
        self._written = self._threads.submit(self._append, records)

    def _wait(self) -> None:
        if self._written is not None:
            written, self._written = self._written, None
            with self._noting(" — no more image features are stored"):
                written.result()
        self._writing = {}

    def _append(self, records: Sequence[tuple[bytes, Stamp, str, tuple[int, ...], Tensor]]) -> None:
        """Run by the thread. Raises StoreError if it cannot write or the limit is reached."""
        try:
            for key, stamp, dtype, shape, tensor in records:
                data = _raw(tensor)
                if self._size + len(data) > self._limit:
                    raise StoreError(
                        f"{self.path} has reached its limit of {self._limit / 2**20:,.0f} MB",
                        "raise --image-cache-disk-mb",
                    )
                head = _HEAD.pack(len(key), *stamp, zlib.crc32(data), dtype.encode(), len(shape))
                payload = b"".join([head, key, np.array(shape, "<i8").tobytes(), data])
                with self._file_lock:
                    if self._journal is None:
                        self._journal = Journal.create(journal_path(self.path), self._header.identity())
                    entry = self._journal.append(payload)
                offset = entry.offset + entry.length - len(data)
                self._rows[key] = _Row(stamp, dtype, shape, zlib.crc32(data), True, offset, len(data))
                self._size += len(data)
        except BaseException:
            self._stopped = True
            raise

    def _is_worth_it(self) -> bool:
        added = sum(row.length for row in self._rows.values() if row.journaled)
        return added > 0 and (self._size < _SMALL or 4 * added >= self._size)

    def _compact(self) -> None:
        """Writes the rows of file and journal into a file that replaces the old one, then removes the journal."""
        self._write_file(sorted(self._rows.items(), key=lambda pair: (pair[1].journaled, pair[1].offset)))
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.remove()

    def _write_file(self, rows: Sequence[tuple[bytes, _Row]]) -> None:
        """Replaces the file with one of these rows; damaged rows are left out."""
        stored: list[tuple[bytes, _Row]] = []
        end = 0
        with create_h5(self.path) as (new, check):
            self._header.write(new, complete=True)
            data = new.create_dataset("data", (sum(row.length for _, row in rows),), "u1")
            for key, row in rows:
                content = self._bytes(row)
                if content is not None:
                    data[end : end + row.length] = np.frombuffer(content, np.uint8)
                    stored.append((key, row._replace(offset=end)))
                    end += row.length
                    check()
            _write_index(new, stored)
            if self._h5 is not None:
                self._h5.close()

    def _forget(self) -> None:
        self._rows.clear()
        with contextlib.suppress(StoreError):
            self._close_files()

    def _close_files(self) -> None:
        try:
            if self._journal is not None:
                self._journal.close()
        finally:
            self._journal = None
            if self._h5 is not None:
                self._h5.close()

    @contextlib.contextmanager
    def _noting(self, more: str = "") -> Iterator[None]:
        """Turns a StoreError of the block into a note."""
        try:
            yield
        except StoreError as error:
            self._note(error.message + more + (f" ({error.hint})" if error.hint else ""))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _write_index(file: h5py.File, rows: Sequence[tuple[bytes, _Row]]) -> None:
    import h5py

    def column(name: str, values: Iterable[object], dtype: str, *shape: int) -> None:
        file.create_dataset(name, data=np.array(list(values), dtype).reshape(len(rows), *shape))

    names = np.array([key for key, _ in rows], object)
    file.create_dataset("image", (len(rows),), h5py.string_dtype(), data=names if len(rows) else None)
    column("stamp", (row.stamp for _, row in rows), "<i8", 2)
    column("dtype", (row.dtype for _, row in rows), "S20")
    column("shape", ([*row.shape, *[-1] * (_DIMENSIONS - len(row.shape))] for _, row in rows), "<i8", _DIMENSIONS)
    column("crc", (row.crc for _, row in rows), "<u4")
    column("offset", (row.offset for _, row in rows), "<i8")
    column("length", (row.length for _, row in rows), "<i8")


def _stored_rows(file: h5py.File) -> Iterator[tuple[bytes, _Row]]:
    """The rows of an open file. ValueError, or an exception of h5py, if its columns do not match."""
    columns = [file[name][:].tolist() for name in ("image", "stamp", "dtype", "shape", "crc", "offset", "length")]
    for image, stamp, dtype, shape, crc, offset, length in zip(*columns, strict=True):
        dimensions = tuple(size for size in shape if size >= 0)
        yield image, _Row((stamp[0], stamp[1]), dtype.decode(), dimensions, crc, False, offset, length)


def _journal_row(journal: Journal, entry: Entry) -> tuple[bytes, _Row]:
    head = journal.read(entry, _HEAD.size)
    named, size, modified, crc, dtype, dimensions = _HEAD.unpack(head)
    start = _HEAD.size + named + 8 * dimensions
    known = journal.read(entry, start)
    shape = tuple(np.frombuffer(known, "<i8", dimensions, _HEAD.size + named).tolist())
    row = _Row(
        (size, modified), dtype.rstrip(b"\0").decode(), shape, crc, True, entry.offset + start, entry.length - start
    )
    return known[_HEAD.size : _HEAD.size + named], row


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100  called for every image


def _stamp(reference: str) -> Stamp | None:
    """(bytes, modification time in ns) of the image's file, or of its zip archive; None if there is no file."""
    path = image_file(reference)
    with contextlib.suppress(OSError):
        try:
            status = os.stat(path)  # noqa: PTH116  called for every image
        except (FileNotFoundError, NotADirectoryError):
            member = archive_and_member(path)
            if member is None:
                return None
            status = os.stat(member[0])  # noqa: PTH116
        return status.st_size, status.st_mtime_ns
    return None


def _raw(tensor: Tensor) -> bytes:
    """The bytes of a contiguous tensor on the CPU, whatever its type; NumPy has no bfloat16."""
    import torch

    raw: bytes = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return raw


def _tensor(raw: bytes | None, row: _Row) -> Tensor | None:
    """The features; None if the bytes are missing or do not have this type and shape."""
    import torch

    dtype = getattr(torch, row.dtype, None)
    if raw is None or not isinstance(dtype, torch.dtype) or math.prod(row.shape) * dtype.itemsize != len(raw):
        return None
    if not raw:
        return torch.empty(row.shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(row.shape)
