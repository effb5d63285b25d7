"""Rows that come in any order, with gaps, over several runs, give the file that rows in order give."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.errors import StoreError
from icltool.store import embeddings
from icltool.store.embeddings import EmbeddingFile, EmbeddingWriter
from icltool.store.out_of_order_rows import out_of_order_path

from .killable import DIM, embedding_writer, features_of, ids_of

TOTAL, STEP = 11, 3
BLOCKS = [range(low, min(low + STEP, TOTAL)) for low in range(0, TOTAL, STEP)]


def put(path: Path, blocks: list[range]) -> list[range]:
    """What is missing after these blocks were put in one run."""
    with embedding_writer(path, TOTAL) as writer:
        for rows in blocks:
            writer.put(rows.start, ids_of(rows), features_of(rows))
        missing = list(writer.missing(STEP))
        assert writer.there == TOTAL - sum(map(len, missing))
        return missing


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(len(BLOCKS))), st.sets(st.integers(0, len(BLOCKS))))
def test_any_order_over_any_runs(memory_path: Path, order: list[int], ends: set[int]) -> None:
    path = memory_path / "file.h5"
    for left in (path, out_of_order_path(path)):
        left.unlink(missing_ok=True)
    cuts = [0, *sorted(ends - {0}), len(order)]
    for low, high in itertools.pairwise(cuts):
        there = order[:high]
        missing = put(path, [BLOCKS[k] for k in order[low:high]])
        assert missing == [rows for k, rows in enumerate(BLOCKS) if k not in there]
        with EmbeddingFile.open(path) as file:
            prefix = next((k for k in range(len(BLOCKS)) if k not in there), len(BLOCKS))
            assert len(file) == (BLOCKS[prefix].start if prefix < len(BLOCKS) else TOTAL), "a reader sees no gap"
    assert not out_of_order_path(path).exists()
    with EmbeddingFile.open(path) as file:
        assert file.complete
        np.testing.assert_array_equal(file.ids, ids_of(range(TOTAL)))
        for field, expected in features_of(range(TOTAL)).items():
            np.testing.assert_array_equal(file.read(field), expected)


def test_blocks_of_another_size_fill_the_gaps(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    put(path, [range(0, 3), range(6, 9)])
    with embedding_writer(path, TOTAL) as writer:
        missing = list(writer.missing(5))
        assert missing == [range(3, 5), range(5, 6), range(9, 10), range(10, 11)]
        for rows in missing:
            writer.put(rows.start, ids_of(rows), features_of(rows))
    with EmbeddingFile.open(path) as file:
        assert file.complete
    assert not out_of_order_path(path).exists()


def test_rows_that_are_there_or_one_too_many_are_refused(tmp_path: Path) -> None:
    with embedding_writer(tmp_path / "file.h5", TOTAL) as writer:
        writer.put(0, ids_of(BLOCKS[0]), features_of(BLOCKS[0]))
        for rows in (BLOCKS[0], range(10, 12)):
            with pytest.raises(ValueError, match="rows"):
                writer.put(rows.start, ids_of(rows), features_of(rows))


def test_a_torn_block_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    put(path, [BLOCKS[1], BLOCKS[2]])
    waiting = out_of_order_path(path)
    waiting.write_bytes(waiting.read_bytes()[:-5])
    assert put(path, []) == [BLOCKS[0], BLOCKS[2], BLOCKS[3]]


def test_a_kill_between_two_parts_of_a_block_that_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of more rows than a record holds is appended in parts; the rest of it still counts as waiting."""
    path = tmp_path / "file.h5"
    monkeypatch.setattr(embeddings, "_BLOCK_BYTES", 2 * 4 * DIM)  # two rows a record
    put(path, [range(3, 9)])
    append, left = EmbeddingWriter._append, 3

    def killed(self: EmbeddingWriter, payload: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        append(self, payload)

    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingWriter, "_append", killed)
        with pytest.raises(KeyboardInterrupt):
            put(path, [BLOCKS[0]])
    with EmbeddingFile.open(path) as file:
        assert len(file) == 5
    assert put(path, []) == [range(9, 11)]
    assert put(path, [range(9, 11)]) == []
    with EmbeddingFile.open(path) as file:
        assert file.complete
        np.testing.assert_array_equal(file.ids, ids_of(range(TOTAL)))


def test_the_file_does_not_grow_with_what_has_had_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with embedding_writer(path, TOTAL) as writer:
        sizes = []
        for late, early in ((BLOCKS[0], BLOCKS[1]), (BLOCKS[2], BLOCKS[3])):
            for rows in (early, late):
                writer.put(rows.start, ids_of(rows), features_of(rows))
                sizes.append(out_of_order_path(path).stat().st_size)
    assert sizes[0] > sizes[1] == sizes[3]


def test_what_was_kept_goes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    put(path, [BLOCKS[1]])
    with embedding_writer(path, TOTAL, overwrite=True) as writer:
        assert list(writer.missing(STEP)) == BLOCKS
    assert not out_of_order_path(path).exists()


def test_rows_of_another_file_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "one.h5", [BLOCKS[1]])
    with embedding_writer(tmp_path / "other.h5", TOTAL + 1):
        pass
    out_of_order_path(tmp_path / "one.h5").rename(out_of_order_path(tmp_path / "other.h5"))
    with (
        pytest.raises(StoreError, match="total is 11 in its rows ahead, 12"),
        embedding_writer(tmp_path / "other.h5", TOTAL + 1),
    ):
        pass
