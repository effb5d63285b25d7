"""The oracle: the best usable sequence of a real sequences file; what is missing is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from icltool.components.retrievers.oracle import OracleOptions, OracleRetriever
from icltool.contracts import IndexSet, IntArray, QueryResult, QuerySet
from icltool.errors import ConfigError, DataError, StoreError
from icltool.plugin.manager import component
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter
from icltool.testing import check_retriever, make_anchors, make_index, make_queries

SHOTS = 2


def result(query_id: int, icd_ids: IntArray, values: Sequence[float]) -> QueryResult:
    beams = len(icd_ids)
    scores = -np.arange(beams, dtype=np.float64)
    return QueryResult(
        query_id=query_id,
        candidates=np.unique(icd_ids),
        icd_ids=icd_ids,
        scores=scores,
        step_scores=np.zeros(icd_ids.shape),
        values=np.asarray(values, dtype=np.float64),
        log_probs=np.zeros(beams),
        base_value=0.0,
        base_log_prob=0.0,
    )


def write(path: Path, results: Sequence[QueryResult]) -> Path:
    provenance = Provenance({"by": "test"}, "fingerprint")
    most = max(len(r.candidates) for r in results)
    with SequenceWriter(path, provenance, SHOTS, 3, most, len(results)) as writer:
        for item in results:
            writer.append(item)
    return path


def sequences(index: IndexSet, queries: QuerySet, seed: int = 0) -> list[QueryResult]:
    """Three sequences for each query: the first leaks, the others do not."""
    rng = np.random.default_rng(seed)
    results: dict[int, QueryResult] = {}
    for position, query_id in enumerate(queries.ids.tolist()):
        leaking = index.leaking_rows(queries, position)
        allowed = rng.permutation(np.setdiff1d(np.arange(len(index)), leaking))[:4]
        rows = np.array([[leaking[0], allowed[0]], allowed[:2], allowed[2:]])
        results[query_id] = result(query_id, index.ids[rows], [9.0, 1.0, 2.0])
    return list(results.values())


@pytest.fixture
def index() -> IndexSet:
    return make_index(240)


def test_conforms(tmp_path: Path, index: IndexSet) -> None:
    """The suite asks for queries of another split and of the same one; a sequence that leaks for neither serves both."""
    rng = np.random.default_rng(3)
    picked = rng.permutation(240)[:20]
    by_id: dict[int, list[IntArray]] = {}
    for queries in (make_queries(index, picked), make_anchors(index, picked)):
        for position, query_id in enumerate(queries.ids.tolist()):
            by_id.setdefault(query_id, []).append(index.leaking_rows(queries, position))
    results = []
    for query_id, leaks in by_id.items():
        allowed = rng.permutation(np.setdiff1d(np.arange(240), np.concatenate(leaks)))
        results.append(result(query_id, index.ids[allowed[:4].reshape(2, 2)], [0.0, 0.0]))
    path = write(tmp_path / "oracle.h5", results)
    check_retriever(lambda: OracleRetriever(OracleOptions(file=path)), shots=(SHOTS,), index=index)
    assert OracleRetriever.sequences == "validation"


def test_the_best_sequence_that_does_not_leak_in_its_order(tmp_path: Path, index: IndexSet) -> None:
    queries = make_queries(index, range(0, 240, 20))
    results = sequences(index, queries)
    path = write(tmp_path / "oracle.h5", results)
    for by, beam in (("scores", 1), ("values", 2)):
        rows = OracleRetriever(OracleOptions(file=path, by=by)).retrieve(index, queries, SHOTS, 0)
        expected = {r.query_id: r.icd_ids[beam].tolist() for r in results}
        assert [index.ids[row].tolist() for row in rows] == [expected[q] for q in queries.ids.tolist()]


def test_another_length_names_the_lengths(tmp_path: Path, index: IndexSet) -> None:
    queries = make_queries(index, [0, 30])
    path = write(tmp_path / "oracle.h5", sequences(index, queries))
    for shots in (1, 3):
        with pytest.raises(ConfigError, match=f"have 2 demonstrations, but --shots asks for {shots}") as caught:
            OracleRetriever(OracleOptions(file=path)).retrieve(index, queries, shots, 0)
        assert "--shots 2" in str(caught.value.hint)


def test_queries_without_a_sequence_are_counted(tmp_path: Path, index: IndexSet) -> None:
    queries = make_queries(index, range(0, 240, 20))
    results = sequences(index, queries)
    path = write(tmp_path / "oracle.h5", results[3:])
    with pytest.raises(DataError, match=r"holds no sequence for 3 of 12 queries \(such as query \d+\)") as caught:
        OracleRetriever(OracleOptions(file=path)).retrieve(index, queries, SHOTS, 0)
    assert "icltool generate --queries validation" in str(caught.value.hint)


def test_sequences_that_all_leak_or_are_of_another_index_set_are_counted(tmp_path: Path, index: IndexSet) -> None:
    queries = make_queries(index, [0, 30, 60])
    results = sequences(index, queries)
    leaking = [result(r.query_id, r.icd_ids[:1], [0.0]) for r in results[:2]]
    foreign = result(results[2].query_id, np.array([[10**9, 10**9 + 1]]), [0.0])
    path = write(tmp_path / "oracle.h5", [*leaking, foreign])
    with pytest.raises(DataError, match="all sequences of 3 of 3 queries leak the answer or name examples outside"):
        OracleRetriever(OracleOptions(file=path)).retrieve(index, queries, SHOTS, 0)


def test_what_is_no_sequences_file_is_refused(tmp_path: Path, index: IndexSet) -> None:
    queries = make_queries(index, [0])
    with pytest.raises(StoreError):
        OracleRetriever(OracleOptions(file=tmp_path / "absent.h5")).retrieve(index, queries, SHOTS, 0)
    with pytest.raises(ConfigError, match=r"by must be .*'luck'"):
        component("retrievers", "oracle", file=tmp_path / "absent.h5", by="luck")
