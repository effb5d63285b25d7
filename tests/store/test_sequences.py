"""Sequences come back as they were appended, in the order of query ids."""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceFile, SequenceWriter

from .killable import BEAMS, CANDIDATES, PROVENANCE, SHOTS, result_of, sequence_writer
from .test_kill import assert_same, content


def append(path: Path, total: int, queries: list[int]) -> None:
    with sequence_writer(path, total) as writer:
        for query in queries:
            writer.append(result_of(query))


def test_round_trip_in_order_of_ids(memory_path: Path) -> None:
    path = memory_path / "new" / "file.h5"
    queries = [12, 3, 2**40, 0, 5]
    append(path, 5, queries)
    with SequenceFile.open(path) as file:
        assert len(file) == file.total == 5
        assert file.complete
        assert (file.shots, file.beam_size, file.candidates) == (SHOTS, BEAMS, CANDIDATES)
        assert file.query_ids == tuple(sorted(queries))
        for query, result in zip(sorted(queries), file.results(), strict=True):
            assert_same(result, result_of(query))


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(9)), st.lists(st.integers(0, 8), max_size=3))
def test_order_and_interruptions_leave_no_trace(memory_path: Path, order: list[int], cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory(dir=memory_path) as folder:
        one, other = Path(folder) / "one.h5", Path(folder) / "other.h5"
        append(one, 9, list(range(9)))
        edges = [0, *sorted(cuts), 9]
        for start, stop in itertools.pairwise(edges):
            append(other, 9, list(order[start:stop]))
        assert content(one) == content(other)


def test_the_file_exists_and_opens_from_the_start(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    with sequence_writer(path, 4) as writer:
        assert writer.finished == frozenset()
        for count in range(4):
            with SequenceFile.open(path) as file:
                assert len(file) == count
                assert not file.complete
                assert [r.query_id for r in file.results()] == list(range(10, 10 + count))
                assert file.arrays()["icd_ids"].shape == (count, BEAMS, SHOTS)
            writer.append(result_of(10 + count))
            assert writer.finished == frozenset(range(10, 11 + count))
        assert h5py.is_hdf5(path)
    assert sorted(p.name for p in memory_path.iterdir()) == [".file.h5.lock", "file.h5"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_an_exception_keeps_what_is_finished(memory_path: Path, error: BaseException) -> None:
    path = memory_path / "file.h5"

    def run() -> None:
        with sequence_writer(path, 4) as writer:
            writer.append(result_of(1))
            writer.append(result_of(0))
            raise error

    with pytest.raises(type(error)):
        run()
    assert not (memory_path / ".file.h5.journal").exists()
    with SequenceFile.open(path) as stored:
        assert not stored.complete
        assert stored.query_ids == (0, 1)
    with h5py.File(path, "r") as file:
        assert not file.attrs["complete"]
    with sequence_writer(path, 4) as writer:
        assert writer.finished == {0, 1}


def test_a_finished_file_is_not_rewritten(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    append(path, 3, [0, 1, 2])
    before = path.stat()
    append(path, 3, [])
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_reader_keeps_its_state_while_the_file_is_replaced(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    with sequence_writer(path, 3) as writer:
        writer.append(result_of(0))
        reader = SequenceFile.open(path)
        writer.append(result_of(1))
    append(path, 3, [2])
    with reader:
        assert [r.query_id for r in reader.results()] == [0]


def test_arrays_are_padded(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    append(path, 3, [5, 4, 9])
    with SequenceFile.open(path) as stored:
        arrays = stored.arrays()
    with h5py.File(path, "r") as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(file[name][...], array)
    shapes = {name: array.shape[1:] for name, array in arrays.items()}
    assert shapes == {
        "query_id": (),
        "candidate_count": (),
        "beam_count": (),
        "candidates": (CANDIDATES,),
        "icd_ids": (BEAMS, SHOTS),
        "scores": (BEAMS,),
        "step_scores": (BEAMS, SHOTS),
        "values": (BEAMS,),
        "log_probs": (BEAMS,),
        "base_value": (),
        "base_log_prob": (),
    }
    assert arrays["query_id"].tolist() == [4, 5, 9]
    assert arrays["beam_count"].tolist() == [BEAMS, BEAMS - 2, BEAMS]
    assert arrays["candidate_count"].tolist() == [CANDIDATES, CANDIDATES - 4, CANDIDATES]
    assert (arrays["icd_ids"][1, BEAMS - 2 :] == -1).all()
    assert np.isnan(arrays["step_scores"][1, BEAMS - 2 :]).all()
    np.testing.assert_array_equal(arrays["scores"][2], result_of(9).scores)


def test_wrong_use(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    good = result_of(1)
    with pytest.raises(RuntimeError, match="not open"):
        sequence_writer(path, 3).append(good)
    with pytest.raises(ValueError, match="beam size 0"):
        SequenceWriter(path, PROVENANCE, 2, 0, 5, 1)
    with sequence_writer(path, 2) as writer:
        with pytest.raises(RuntimeError, match="already open"):
            writer.__enter__()
        changes: list[dict[str, Any]] = [
            {"candidates": np.arange(CANDIDATES + 1)},
            {"scores": np.zeros(BEAMS + 1)},
            {"icd_ids": good.icd_ids[:, :2]},
            {"step_scores": good.step_scores[:1]},
        ]
        for change in changes:
            with pytest.raises(ValueError, match="query 1"):
                writer.append(replace(good, **change))
        assert writer.finished == frozenset()
        writer.append(good)
        with pytest.raises(ValueError, match="finished already"):
            writer.append(good)
        writer.append(result_of(2))
        with pytest.raises(ValueError, match="more than the 2"):
            writer.append(result_of(3))


def test_appending_and_resuming_cost_no_more_as_a_file_grows(memory_path: Path) -> None:
    path, part = memory_path / "file.h5", 500
    one, seconds = result_of(1), []
    with SequenceWriter(path, Provenance({}, ""), SHOTS, BEAMS, CANDIDATES, 4 * part) as writer:
        for first in (0, part, 2 * part):
            start = time.process_time()
            for query in range(first, first + part):
                writer.append(replace(one, query_id=query))
            seconds.append(time.process_time() - start)
    assert seconds[2] < 3 * seconds[0]
    start = time.process_time()
    with SequenceWriter(path, Provenance({}, ""), SHOTS, BEAMS, CANDIDATES, 4 * part) as writer:
        assert len(writer.finished) == 3 * part
    assert time.process_time() - start < sum(seconds), "resuming is as dear as writing"
