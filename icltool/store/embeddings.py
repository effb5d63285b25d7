"""Embeddings of one split: one row per example, image and text features side by side."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np

from icltool.contracts import FloatArray, IntArray
from icltool.errors import StoreError
from icltool.store.artefact import Columns, Header, Schema, count_rows, create_column, reading
from icltool.store.journal import Journal
from icltool.store.out_of_order_rows import OutOfOrderRows
from icltool.store.provenance import Provenance
from icltool.store.reader import ArtefactFile
from icltool.store.writer import JournaledWriter

if TYPE_CHECKING:
    import h5py

SCHEMA = Schema(
    "icltool.embeddings",
    1,
    "embeddings",
    "icltool embed",
    details=("encoder", "encoder_fingerprint", "dim", "fields", "dtype", "total"),
    texts=("encoder", "encoder_fingerprint", "fields", "dtype"),
)
_HEAD = struct.Struct("<QI")  # first row, number of rows
_BLOCK_BYTES = 1 << 20


def dataset_name(field: str) -> str:
    """A field's data set in the file: /image, or /text/<field> for a text field."""
    return "image" if field == "image" else f"text/{field}"


class EmbeddingWriter(JournaledWriter):
    """Writes the embeddings of `total` examples with `dim` features, resumable: `append` in order, `put` in any order.

    `fields` are "image" and names of text fields ("text"). Rows are stored as `dtype`. A context manager; see
    JournaledWriter for what it guarantees. Raises StoreError if another process is writing the file, it cannot be written,
    or it was made with different options, another data set or another encoder (unless `overwrite`, which replaces it).
    """

    def __init__(
        self,
        path: Path,
        provenance: Provenance,
        encoder: str,
        encoder_fingerprint: str,
        dim: int,
        fields: Sequence[str],
        total: int,
        *,
        dtype: Literal["float32", "float16"] = "float32",
        overwrite: bool = False,
    ) -> None:
        if dim < 1 or total < 0 or not fields or len(set(fields)) != len(fields) or dtype not in ("float32", "float16"):
            raise ValueError(f"dim {dim}, total {total}, fields {tuple(fields)}, dtype {dtype}")
        details: dict[str, str | int] = {
            "encoder": encoder,
            "encoder_fingerprint": encoder_fingerprint,
            "dim": dim,
            "fields": ",".join(fields),
            "dtype": dtype,
            "total": total,
        }
        super().__init__(path, Header(SCHEMA, provenance, details), overwrite)
        self.layout = _Layout(tuple(fields), dim, np.dtype(dtype))
        self.total = total
        self._stored = 0
        self._done = 0
        self._out_of_order = OutOfOrderRows(self.path, self.header.identity())

    def __enter__(self) -> EmbeddingWriter:
        super().__enter__()
        try:
            self._out_of_order.resume(_HEAD)
            self._catch_up()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._out_of_order.close(self._done)
        finally:
            super().__exit__(kind, error, trace)

    @property
    def done(self) -> int:
        """The number of rows stored so far, including those of earlier runs: the row at which to resume."""
        return self._done

    def append(self, ids: IntArray, features: Mapping[str, FloatArray]) -> None:
        """Adds n rows: `ids` int64 [n], and for each field an array [n, dim]. Once it returns, they are never lost.

        ValueError for another shape, other fields, or more than `total` rows in all; StoreError when writing fails:
        the rows before `done` are then stored.
        """
        if self._done + len(ids) > self.total:
            raise ValueError(f"{self._done + len(ids)} rows, but only {self.total} were expected")
        block = self.layout.block(ids, features)
        step = self.layout.block_rows
        for start in range(0, len(ids), step):
            part = {name: array[start : start + step] for name, array in block.items()}
            rows = len(part["id"])
            self._append(self.layout.pack(self._done, part))
            self._done += rows

    def put(self, row: int, ids: IntArray, features: Mapping[str, FloatArray]) -> None:
        """Adds the n rows that begin with number `row`, in any order. Once it returns, they are never lost: rows whose
        predecessors are missing wait beside the file. Raises as `append`, and ValueError for rows that are already
        there."""
        if row < self._done or row + len(ids) > self.total:
            raise ValueError(f"rows {row} to {row + len(ids) - 1} of {self.total}, {self._done} are there")
        if row == self._done:
            self.append(ids, features)
            self._catch_up()
        else:
            self._out_of_order.put(row, len(ids), self.layout.pack(row, self.layout.block(ids, features)))

    def missing(self, step: int) -> Iterator[range]:
        """The rows that are currently neither stored nor waiting, in blocks of `step` rows counted from 0."""
        low = self._done
        for waiting in [*self._out_of_order.spans(self._done), range(self.total, self.total)]:
            while low < waiting.start:
                high = min(low - low % step + step, waiting.start)
                yield range(low, high)
                low = high
            low = max(low, waiting.stop)

    @property
    def there(self) -> int:
        """How many rows are stored or waiting."""
        return self._done + sum(len(waiting) for waiting in self._out_of_order.spans(self._done))

    def _catch_up(self) -> None:
        """Appends the waiting rows whose predecessors are now there."""
        while (early := self._out_of_order.next(self._done)) is not None:
            block = self.layout.unpack(*early)
            self.append(block.pop("id"), {field: block[dataset_name(field)] for field in self.layout.fields})
        self._out_of_order.shrink()

    def _start(self) -> None:
        self._out_of_order.remove()
        super()._start()

    def _is_complete(self) -> bool:
        return self._done == self.total

    def _load(self, file: h5py.File) -> None:
        self._stored = self._done = count_rows(self.path, SCHEMA, file, self.layout.columns())

    def _replay(self, journal: Journal) -> None:
        self._done = self._stored + sum(len(rows) for _, rows in _pending(journal, self._stored))

    def _fill(self, new: h5py.File, old: h5py.File | None, journal: Journal | None, check: Callable[[], None]) -> None:
        rows = self._done if old is not None else 0
        for name, shape in self.layout.columns().items():
            create_column(new, name, self.layout.dtype_of(name), (rows, *shape), self.layout.block_rows)
        start = 0
        for block in self._blocks(old, journal) if old is not None else ():
            stop = start + len(block["id"])
            for name, array in block.items():
                new[name][start:stop] = array
            start = stop
            check()

    def _blocks(self, old: h5py.File, journal: Journal | None) -> Iterator[Columns]:
        step = self.layout.block_rows
        stored = len(old["id"])
        for start in range(0, stored, step):
            with reading(self.path, SCHEMA):
                block = {name: old[name][start : start + step] for name in self.layout.columns()}
            yield block
        if journal is not None:
            for index, rows in _pending(journal, stored):
                yield self.layout.unpack(journal.read(journal.entries[index]), rows.start)


class _Layout:
    """The columns of an embeddings file, and how a block of rows becomes a journal record."""

    def __init__(self, fields: tuple[str, ...], dim: int, dtype: np.dtype[np.generic]) -> None:
        self.fields = fields
        self.dim = dim
        self.dtype = dtype.newbyteorder("<")
        self.block_rows = max(1, _BLOCK_BYTES // (dim * dtype.itemsize))

    def columns(self) -> dict[str, tuple[int, ...]]:
        """Data set name -> shape of a row."""
        return {"id": (), **{dataset_name(field): (self.dim,) for field in self.fields}}

    def dtype_of(self, name: str) -> np.dtype[np.generic]:
        """The type of a column."""
        return np.dtype("<i8") if name == "id" else self.dtype

    def block(self, ids: IntArray, features: Mapping[str, FloatArray]) -> Columns:
        """The columns of some rows, checked and in the file's types."""
        if set(features) != set(self.fields):
            raise ValueError(f"features of {sorted(features)}, but the file has {list(self.fields)}")
        columns: Columns = {"id": np.ascontiguousarray(ids, "<i8")}
        for field in self.fields:
            columns[dataset_name(field)] = np.ascontiguousarray(features[field], self.dtype)
        for name, shape in self.columns().items():
            if columns[name].shape != (len(ids), *shape):
                raise ValueError(f"{name} has shape {columns[name].shape}, not {(len(ids), *shape)}")
        return columns

    def pack(self, row: int, block: Columns) -> bytes:
        return _HEAD.pack(row, len(block["id"])) + b"".join(block[name].tobytes() for name in self.columns())

    def unpack(self, payload: bytes, skip: int) -> Columns:
        """The columns of a record, without its first `skip` rows."""
        _, rows = _HEAD.unpack_from(payload)
        offset = _HEAD.size
        columns: Columns = {}
        for name, shape in self.columns().items():
            dtype = self.dtype_of(name)
            count = rows * int(np.prod(shape, dtype=np.int64))
            columns[name] = np.frombuffer(payload, dtype, count, offset).reshape(rows, *shape)[skip:]
            offset += count * dtype.itemsize
        return columns


def _pending(journal: Journal, stored: int) -> list[tuple[int, range]]:
    """(record number, which of its rows are not yet among the first `stored`), for the records that have any.

    StoreError if rows are missing between two records: the journal belongs to another state of the file.
    """
    ranges: list[tuple[int, range]] = []
    for index, entry in enumerate(journal.entries):
        first, count = _HEAD.unpack(journal.read(entry, _HEAD.size))
        if first > stored:
            raise StoreError(
                f"{journal.path} continues at row {first}, but its file has {stored} rows",
                "restore the file that it belongs to, or restart with --overwrite",
            )
        if first + count > stored:
            ranges.append((index, range(stored - first, count)))
            stored = first + count
    return ranges


class EmbeddingFile(ArtefactFile):
    """Embeddings opened for reading. `ids` int64 [N] are the example ids in row order, N the rows stored so far."""

    schema = SCHEMA

    def __init__(self, path: Path, file: h5py.File, header: Header, journal: Journal | None) -> None:
        super().__init__(path, file, header, journal)
        self.fields = tuple(str(header.details["fields"]).split(","))
        self._layout = _Layout(self.fields, self.dim, np.dtype(str(header.details["dtype"])))
        self._stored = count_rows(path, SCHEMA, file, self._layout.columns())
        stored = np.asarray(file["id"][:], np.int64)
        self._pending = _pending(journal, len(stored)) if journal is not None else []
        self.ids: IntArray = np.concatenate([stored, *(block["id"] for block in self._journal_blocks())])

    @property
    def encoder(self) -> str:
        return str(self.header.details["encoder"])

    @property
    def encoder_fingerprint(self) -> str:
        return str(self.header.details["encoder_fingerprint"])

    @property
    def dim(self) -> int:
        return int(self.header.details["dim"])

    def __len__(self) -> int:
        return len(self.ids)

    def waiting(self) -> int:
        return OutOfOrderRows(self.path, self.header.identity()).waiting(_HEAD, len(self))

    def read(self, field: str) -> FloatArray:
        """All rows of a field, float32 [N, D]. StoreError when the file has no such field."""
        vectors = np.empty((len(self), self.dim), np.float32)
        start = 0
        for block in self._blocks(field, self._layout.block_rows):
            vectors[start : start + len(block)] = block
            start += len(block)
        return vectors

    def chunks(self, field: str, rows: int) -> Iterator[FloatArray]:
        """The rows of a field in order, float32 [rows, D] at a time (the last may be shorter), without holding more."""
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        held: list[FloatArray] = []
        count = 0
        for block in self._blocks(field, rows):
            while count + len(block) >= rows:
                cut = rows - count
                yield np.concatenate([*held, block[:cut]])
                block, held, count = block[cut:], [], 0
            if len(block):
                held.append(block)
                count += len(block)
        if held:
            yield np.concatenate(held)

    def _blocks(self, field: str, rows: int) -> Iterator[FloatArray]:
        if field not in self.fields:
            raise StoreError(
                f"{self.path} has no {field!r} embeddings, only {', '.join(self.fields)}",
                f"run `{SCHEMA.command}` for that field",
            )
        name = dataset_name(field)
        for start in range(0, self._stored, rows):
            with reading(self.path, SCHEMA):
                block = self._h5[name][start : start + rows].astype(np.float32)
            yield block
        for pending in self._journal_blocks():
            yield pending[name].astype(np.float32)

    def _journal_blocks(self) -> Iterator[Columns]:
        for index, rows in self._pending:
            assert self._journal is not None
            yield self._layout.unpack(self._journal.read(self._journal.entries[index]), rows.start)
