"""Generated sequences: for each query the beams that survived the search, ordered by query id."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.contracts import QueryResult
from icltool.store.artefact import Columns, Header, Schema, count_rows, create_column, reading
from icltool.store.journal import Entry, Journal
from icltool.store.provenance import Provenance
from icltool.store.reader import ArtefactFile
from icltool.store.writer import JournaledWriter

if TYPE_CHECKING:
    import h5py

SCHEMA = Schema(
    "icltool.sequences",
    1,
    "sequences",
    "icltool generate",
    details=("shots", "beam_size", "candidates", "total"),
)
_HEAD = struct.Struct("<qIIIdd")  # query id, candidates, beams, ICDs per beam, base value, base log-probability
_QUERY_ID = struct.Struct("<q")
_BLOCK_BYTES = 1 << 20


class SequenceWriter(JournaledWriter):
    """Writes the results of `total` queries, in any order; the finished file does not depend on the order.

    `shots` is K, `beam_size` the most beams and `candidates` the most candidates that a query can have. A context manager;
    see JournaledWriter for what it guarantees. Raises StoreError if another process is writing the file, it cannot be
    written, or it was made with different options or another data set (unless `overwrite`, which replaces it).
    """

    def __init__(
        self,
        path: Path,
        provenance: Provenance,
        shots: int,
        beam_size: int,
        candidates: int,
        total: int,
        *,
        overwrite: bool = False,
    ) -> None:
        if min(shots, beam_size, candidates) < 1 or total < 0:
            raise ValueError(f"shots {shots}, beam size {beam_size}, candidates {candidates}, total {total}")
        details: dict[str, str | int] = {
            "shots": shots,
            "beam_size": beam_size,
            "candidates": candidates,
            "total": total,
        }
        super().__init__(path, Header(SCHEMA, provenance, details), overwrite)
        self.total = total
        self._layout = _Layout(shots, beam_size, candidates)
        self._finished: set[int] = set()

    @property
    def finished(self) -> frozenset[int]:
        """Ids of the stored queries, including those of earlier runs."""
        return frozenset(self._finished)

    def append(self, result: QueryResult) -> None:
        """Adds one finished query. Once it returns, the query is never lost. ValueError if the query is already stored,
        exceeds `total`, or has arrays of the wrong shape; StoreError if writing fails: the earlier queries are then stored.
        """
        if result.query_id in self._finished:
            raise ValueError(f"query {result.query_id} is finished already")
        if len(self._finished) >= self.total:
            raise ValueError(f"more than the {self.total} expected queries")
        self._append(self._layout.pack(result))
        self._finished.add(result.query_id)

    def _is_complete(self) -> bool:
        return len(self._finished) == self.total

    def _load(self, file: h5py.File) -> None:
        count_rows(self.path, SCHEMA, file, self._layout.shapes())
        self._finished = set(file["query_id"][:].tolist())

    def _replay(self, journal: Journal) -> None:
        self._finished |= {query for query, _ in _journal_index(journal)}

    def _fill(self, new: h5py.File, old: h5py.File | None, journal: Journal | None, check: Callable[[], None]) -> None:
        rows = _MergedRows(self.path, self._layout, old, journal)
        for name, (dtype, shape, _) in self._layout.columns.items():
            create_column(new, name, np.dtype(dtype), (len(rows), *shape), self._layout.block_rows)
        step = self._layout.block_rows
        for start in range(0, len(rows), step):
            results = list(rows.read(start, start + step))
            for name, array in self._layout.stack(results).items():
                new[name][start : start + len(results)] = array
            check()


class _Layout:
    """The columns of a sequences file, and how one query becomes a journal record."""

    def __init__(self, shots: int, beam_size: int, candidates: int) -> None:
        self.shots, self.beam_size, self.candidates = shots, beam_size, candidates
        K, B, C = shots, beam_size, candidates
        nan = float("nan")
        #: name -> (dtype, shape of a row, padding value)
        self.columns: dict[str, tuple[str, tuple[int, ...], float]] = {
            "query_id": ("<i8", (), -1),
            "candidate_count": ("<i8", (), -1),
            "beam_count": ("<i8", (), -1),
            "candidates": ("<i8", (C,), -1),
            "icd_ids": ("<i8", (B, K), -1),
            "scores": ("<f8", (B,), nan),
            "step_scores": ("<f8", (B, K), nan),
            "values": ("<f8", (B,), nan),
            "log_probs": ("<f8", (B,), nan),
            "base_value": ("<f8", (), nan),
            "base_log_prob": ("<f8", (), nan),
        }
        widest = 8 * max(C, B * K)
        self.block_rows = min(max(1, _BLOCK_BYTES // widest), 1024)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Data set name -> shape of a row."""
        return {name: shape for name, (_, shape, _) in self.columns.items()}

    def pack(self, result: QueryResult) -> bytes:
        """The journal record of a query. ValueError if its arrays do not fit the file."""
        candidates, beams = len(result.candidates), len(result.scores)
        if candidates > self.candidates or beams > self.beam_size:
            raise ValueError(
                f"query {result.query_id} has {candidates} candidates and {beams} beams, but the file has room for "
                f"{self.candidates} and {self.beam_size}"
            )
        head = _HEAD.pack(
            result.query_id, candidates, beams, self.shots, float(result.base_value), float(result.base_log_prob)
        )
        parts = [head]
        for name, dtype, shape in _record_arrays(candidates, beams, self.shots):
            array = np.ascontiguousarray(getattr(result, name), dtype)
            if array.shape != shape:
                raise ValueError(f"{name} of query {result.query_id} has shape {array.shape}, not {shape}")
            parts.append(array.tobytes())
        return b"".join(parts)

    @staticmethod
    def unpack(payload: bytes) -> QueryResult:
        query_id, candidates, beams, shots, base_value, base_log_prob = _HEAD.unpack_from(payload)
        offset = _HEAD.size
        arrays: Columns = {}
        for name, dtype, shape in _record_arrays(candidates, beams, shots):
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(payload, dtype, count, offset).reshape(shape).copy()
            offset += count * 8
        return QueryResult(query_id=query_id, base_value=base_value, base_log_prob=base_log_prob, **arrays)

    def stack(self, results: Sequence[QueryResult]) -> Columns:
        """The columns of some queries, padded."""
        columns = {
            name: np.full((len(results), *shape), padding, dtype)
            for name, (dtype, shape, padding) in self.columns.items()
        }
        for row, result in enumerate(results):
            columns["candidate_count"][row] = len(result.candidates)
            columns["beam_count"][row] = len(result.scores)
            columns["candidates"][row, : len(result.candidates)] = result.candidates
            for name in ("icd_ids", "scores", "step_scores", "values", "log_probs"):
                columns[name][row, : len(result.scores)] = getattr(result, name)
            for name in ("query_id", "base_value", "base_log_prob"):
                columns[name][row] = getattr(result, name)
        return columns

    @staticmethod
    def result(columns: Columns, row: int) -> QueryResult:
        """The query in a row of the columns, without padding."""
        candidates, beams = int(columns["candidate_count"][row]), int(columns["beam_count"][row])
        beam_arrays = {
            name: columns[name][row, :beams].copy()
            for name in ("icd_ids", "scores", "step_scores", "values", "log_probs")
        }
        return QueryResult(
            query_id=int(columns["query_id"][row]),
            candidates=columns["candidates"][row, :candidates].copy(),
            base_value=float(columns["base_value"][row]),
            base_log_prob=float(columns["base_log_prob"][row]),
            **beam_arrays,
        )


def _record_arrays(candidates: int, beams: int, shots: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """(field, dtype, shape) of the arrays of a journal record, in order."""
    return [
        ("candidates", "<i8", (candidates,)),
        ("icd_ids", "<i8", (beams, shots)),
        ("scores", "<f8", (beams,)),
        ("step_scores", "<f8", (beams, shots)),
        ("values", "<f8", (beams,)),
        ("log_probs", "<f8", (beams,)),
    ]


def _journal_index(journal: Journal) -> list[tuple[int, Entry]]:
    """(query id, record) of each record."""
    return [(_QUERY_ID.unpack(journal.read(entry, _QUERY_ID.size))[0], entry) for entry in journal.entries]


class _MergedRows:
    """The queries of file and journal as one table ordered by query id; a query in both is taken from the file."""

    def __init__(self, path: Path, layout: _Layout, file: h5py.File | None, journal: Journal | None) -> None:
        self._path, self._layout, self._file, self._journal = path, layout, file, journal
        stored: list[int] = []
        if file is not None:
            count_rows(path, SCHEMA, file, layout.shapes())
            with reading(path, SCHEMA):
                stored = file["query_id"][:].tolist()
        places: dict[int, int | Entry] = dict(_journal_index(journal)) if journal is not None else {}
        places.update((query, row) for row, query in enumerate(stored))
        self.query_ids = sorted(places)
        self._places = [places[query] for query in self.query_ids]
        self._block: Columns = {}
        self._block_start = -1

    def __len__(self) -> int:
        return len(self.query_ids)

    def read(self, start: int, stop: int) -> Iterator[QueryResult]:
        for place in self._places[start:stop]:
            if isinstance(place, Entry):
                assert self._journal is not None
                yield self._layout.unpack(self._journal.read(place))
            else:
                yield self._stored(place)

    def _stored(self, row: int) -> QueryResult:
        """A row of the HDF5 file, which is read in blocks."""
        step = self._layout.block_rows
        start = row - row % step
        if start != self._block_start:
            assert self._file is not None
            with reading(self._path, SCHEMA):
                self._block = {name: self._file[name][start : start + step] for name in self._layout.columns}
            self._block_start = start
        return self._layout.result(self._block, row - start)


class SequenceFile(ArtefactFile):
    """Sequences opened for reading, ordered by query id. `len` is the number of finished queries."""

    schema = SCHEMA

    def __init__(self, path: Path, file: h5py.File, header: Header, journal: Journal | None) -> None:
        super().__init__(path, file, header, journal)
        self._layout = _Layout(self.shots, self.beam_size, self.candidates)
        self._rows = _MergedRows(path, self._layout, file, journal)

    @property
    def shots(self) -> int:
        return int(self.header.details["shots"])

    @property
    def beam_size(self) -> int:
        return int(self.header.details["beam_size"])

    @property
    def candidates(self) -> int:
        """The most candidates that a query can have."""
        return int(self.header.details["candidates"])

    @property
    def query_ids(self) -> tuple[int, ...]:
        """Ids of the finished queries, ascending."""
        return tuple(self._rows.query_ids)

    def __len__(self) -> int:
        return len(self._rows)

    def results(self) -> Iterator[QueryResult]:
        """The finished queries by ascending id, padding removed. StoreError if the file is damaged."""
        return self._rows.read(0, len(self))

    def arrays(self) -> Columns:
        """All results as arrays, by ascending query id, for Q queries, C candidates, B beams and K shots.

        int64: query_id, candidate_count, beam_count [Q], candidates [Q, C], icd_ids [Q, B, K]. float64: base_value,
        base_log_prob [Q], scores, values, log_probs [Q, B], step_scores [Q, B, K]. Where a query has fewer candidates
        or beams, ids are padded with -1 and numbers with NaN.
        """
        return self._layout.stack(list(self.results()))
