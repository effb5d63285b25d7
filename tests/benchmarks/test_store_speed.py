"""Finished anchors written per second: ours, and a JSON file of all results that is written again after every anchor.

python -m pytest tests/benchmarks/test_store_speed.py -s
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.contracts import QueryResult
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceFile, SequenceWriter

pytestmark = pytest.mark.benchmark

CANDIDATES, BEAMS = 64, 5
#: Finished anchors before the measured ones, and how many are measured of ours and of the other way.
FINISHED = {0: (5_000, 50), 1_000: (5_000, 20), 5_000: (5_000, 8)}
SYNCED = 100


def _result(query: int, shots: int) -> QueryResult:
    rng = np.random.default_rng(query)
    return QueryResult(
        query_id=query,
        candidates=rng.integers(0, 120_000, CANDIDATES),
        icd_ids=rng.integers(0, 120_000, (BEAMS, shots)),
        scores=rng.random(BEAMS),
        step_scores=rng.random((BEAMS, shots)),
        values=rng.random(BEAMS),
        log_probs=-rng.random(BEAMS),
        base_value=float(rng.random()),
        base_log_prob=-float(rng.random()),
    )


def _plain(result: QueryResult) -> dict[str, Any]:
    values = dataclasses.asdict(result)
    return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in values.items()}


def _rate(append: Callable[[QueryResult], object], results: list[QueryResult]) -> float:
    """Results per second."""
    start = time.perf_counter()
    for result in results:
        append(result)
    return len(results) / (time.perf_counter() - start)


class _WholeJson:
    """A file that is written again with every result."""

    def __init__(self, path: Path, finished: list[QueryResult]) -> None:
        self.path = path
        self.results = {result.query_id: _plain(result) for result in finished}

    def append(self, result: QueryResult) -> None:
        self.results[result.query_id] = _plain(result)
        self.path.write_text(json.dumps(self.results))  # json.dump, without C's encoder, would take longer


@pytest.mark.parametrize("shots", [2, 16])
def test_speed_beside_a_json_file_written_again(shots: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints anchors per second, for a file that was resumed with so many finished. What is read must be equal; no time is
    asserted.

    That every append that returned survives SIGKILL is for tests/store/test_kill.py to show.
    """
    lines = []
    for finished, (ours, theirs) in FINISHED.items():
        before = [_result(query, shots) for query in range(finished)]
        new = [_result(query, shots) for query in range(finished, finished + ours + SYNCED)]
        path, total = tmp_path / f"{finished}.h5", finished + ours + SYNCED
        with SequenceWriter(path, Provenance({}, "0123"), shots, BEAMS, CANDIDATES, total) as writer:
            for result in before:
                writer.append(result)
        with SequenceWriter(path, Provenance({}, "0123"), shots, BEAMS, CANDIDATES, total) as writer:
            rate = _rate(writer.append, new[:ours])
            synced = _rate(lambda result, writer=writer: _append_synced(writer, result), new[ours:])
            start = time.perf_counter()
        closing = time.perf_counter() - start
        whole = _WholeJson(tmp_path / f"{finished}.json", before)
        plain_rate = _rate(whole.append, new[:theirs])
        _check_equal(path, whole.path, finished + theirs)
        lines.append(
            f"store, {shots} shots, {finished:,} finished: {rate:,.0f} anchors/s, each handed to the operating system when "
            f"append returns (safe against SIGKILL; synced to the disk every 5 s), {synced:,.0f} with a sync after each "
            f"(safe against power failure); whole JSON {plain_rate:,.1f} (neither), {rate / plain_rate:,.0f} x; closing "
            f"once {closing:.2f} s"
        )
    with capsys.disabled():
        print("", *lines, sep="\n")


def _append_synced(writer: SequenceWriter, result: QueryResult) -> None:
    writer.append(result)
    assert writer._journal is not None
    writer._journal.sync()


def _check_equal(path: Path, whole: Path, count: int) -> None:
    with SequenceFile.open(path) as file:
        stored = {str(result.query_id): _plain(result) for result in file.results()}
    expected = json.loads(whole.read_text())
    assert len(expected) == count
    assert {query: stored[query] for query in expected} == expected
