"""Embeddings come back row for row, whole or in pieces, and a writer goes on where the last one stopped."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.errors import StoreError
from icltool.store.embeddings import EmbeddingFile, EmbeddingWriter

from .killable import DIM, PROVENANCE, embedding_writer, features_of, ids_of
from .test_kill import content


def append(path: Path, total: int, rows: range) -> None:
    with embedding_writer(path, total) as writer:
        assert writer.done == rows.start
        writer.append(ids_of(rows), features_of(rows))


def test_round_trip(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    append(path, 10, range(10))
    with EmbeddingFile.open(path) as stored:
        assert stored.complete
        assert len(stored) == 10
        assert (stored.encoder, stored.encoder_fingerprint, stored.dim) == ("tiny-clip", "c0ffee", DIM)
        assert stored.fields == ("image", "text")
        assert stored.ids.dtype == np.int64
        np.testing.assert_array_equal(stored.ids, ids_of(range(10)))
        for field, expected in features_of(range(10)).items():
            read = stored.read(field)
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, expected)
        with pytest.raises(StoreError, match=r"no 'question' embeddings, only image, text"):
            stored.read("question")
    with h5py.File(path, "r") as file:
        assert file["image"].shape == file["text/text"].shape == (10, DIM)
        assert file["image"].chunks is not None
        assert file["image"].dtype == np.float32
        assert file["id"].dtype == np.int64
        assert file.attrs["encoder"] == "tiny-clip"


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 12), max_size=4), st.lists(st.integers(0, 12), max_size=4), st.integers(1, 14))
def test_interruptions_leave_no_trace(memory_path: Path, closed: list[int], blocks: list[int], rows: int) -> None:
    one, other = memory_path / "one.h5", memory_path / "other.h5"
    for path in (one, other):
        path.unlink(missing_ok=True)
    append(one, 12, range(12))
    edges = sorted({0, 12, *closed})
    for start, stop in itertools.pairwise(edges):
        with embedding_writer(other, 12) as writer:
            inner = sorted({start, stop, *(b for b in blocks if start < b < stop)})
            for low, high in itertools.pairwise(inner):
                writer.append(ids_of(range(low, high)), features_of(range(low, high)))
                with EmbeddingFile.open(other) as file:
                    assert len(file) == high
                    np.testing.assert_array_equal(file.read("text"), features_of(range(high))["text"])
                    pieces = list(file.chunks("image", rows))
                    assert all(len(piece) == rows for piece in pieces[:-1])
                    assert 0 < len(pieces[-1]) <= rows
                    np.testing.assert_array_equal(np.concatenate(pieces), features_of(range(high))["image"])
    assert content(one) == content(other)


def test_large_blocks_are_split(memory_path: Path) -> None:
    path, dim, rows = memory_path / "file.h5", 1024, 2000
    image = np.arange(rows * dim, dtype=np.float32).reshape(rows, dim)
    with EmbeddingWriter(path, PROVENANCE, "e", "f", dim, ("image",), rows) as writer:
        writer.append(np.arange(rows), {"image": image})
        assert writer.done == rows
        with EmbeddingFile.open(path) as file:
            np.testing.assert_array_equal(file.read("image"), image)
    with EmbeddingFile.open(path) as file:
        np.testing.assert_array_equal(file.read("image"), image)
        np.testing.assert_array_equal(np.concatenate(list(file.chunks("image", 300))), image)


def test_float16(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    with embedding_writer(path, 4, dtype="float16") as writer:
        writer.append(ids_of(range(4)), features_of(range(4)))
    expected = features_of(range(4))["image"].astype(np.float16)
    with EmbeddingFile.open(path) as stored:
        read = stored.read("image")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, expected.astype(np.float32))
    with h5py.File(path, "r") as file:
        assert file["image"].dtype == np.float16
    with pytest.raises(StoreError, match="dtype is 'float16' in the file, 'float32' in this run"):
        embedding_writer(path, 4).__enter__()


def test_another_encoder_is_refused(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    append(path, 4, range(2))
    with pytest.raises(StoreError, match="encoder is 'tiny-clip' in the file, 'vit-l-14' in this run"):
        EmbeddingWriter(path, PROVENANCE, "vit-l-14", "c0ffee", DIM, ("image", "text"), 4).__enter__()
    with pytest.raises(StoreError, match="fields is 'image,text' in the file, 'image' in this run"):
        EmbeddingWriter(path, PROVENANCE, "tiny-clip", "c0ffee", DIM, ("image",), 4).__enter__()
    append(path, 4, range(2, 4))


def test_interrupted_run_goes_on(memory_path: Path) -> None:
    path = memory_path / "file.h5"

    def run() -> None:
        with embedding_writer(path, 9) as writer:
            writer.append(ids_of(range(5)), features_of(range(5)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    with EmbeddingFile.open(path) as file:
        assert not file.complete
        assert len(file) == 5
    append(path, 9, range(5, 9))


def test_wrong_use(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    features = features_of(range(3))
    with pytest.raises(ValueError, match="dtype int8"):
        embedding_writer(path, 3, dtype="int8")
    with embedding_writer(path, 3) as writer:
        with pytest.raises(ValueError, match="features of"):
            writer.append(ids_of(range(3)), {"image": features["image"]})
        with pytest.raises(ValueError, match="text/text has shape"):
            writer.append(ids_of(range(3)), {**features, "text": features["text"][:2]})
        with pytest.raises(ValueError, match="4 rows, but only 3 were expected"):
            writer.append(ids_of(range(4)), features_of(range(4)))
        assert writer.done == 0
        writer.append(ids_of(range(0)), {name: array[:0] for name, array in features.items()})
        writer.append(ids_of(range(3)), features)
    with EmbeddingFile.open(path) as file, pytest.raises(ValueError, match="at least 1"):
        next(file.chunks("image", 0))


def test_rows_missing_between_file_and_journal_are_refused(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    with embedding_writer(path, 6):
        pass
    early = path.read_bytes()
    append(path, 6, range(2))
    with embedding_writer(path, 6) as writer:
        writer.append(ids_of(range(2, 4)), features_of(range(2, 4)))
        journal = (memory_path / ".file.h5.journal").read_bytes()
    path.write_bytes(early)
    (memory_path / ".file.h5.journal").write_bytes(journal)
    for attempt in (lambda: EmbeddingFile.open(path), lambda: embedding_writer(path, 6).__enter__()):
        with pytest.raises(StoreError, match="continues at row 2, but its file has 0 rows"):
            attempt()


GROW = """
import resource, sys
from pathlib import Path
import numpy as np
from icltool.store.provenance import Provenance
from icltool.store.embeddings import EmbeddingFile, EmbeddingWriter

def peak():  # bytes; the kernel counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

path, dim, rows = Path(sys.argv[1]), 768, 60_000
block = np.ones((500, dim), np.float32)
for half in (0, 1):
    with EmbeddingWriter(path, Provenance({}, ""), "e", "f", dim, ("image",), rows) as writer:
        before = peak()
        for start in range(half * rows // 2, (half + 1) * rows // 2, 500):
            writer.append(np.arange(start, start + 500), {"image": block})
with EmbeddingFile.open(path) as found:
    assert found.complete
    assert sum(len(chunk) for chunk in found.chunks("image", 1000)) == rows
print(peak() - before, path.stat().st_size)
"""


def test_memory_stays_bounded(memory_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", GROW, str(memory_path / "file.h5")], capture_output=True, text=True, check=True
    )
    grown, size = map(int, process.stdout.split())
    assert size > 180e6
    assert grown < 60e6
