"""Plans: read back as written, readable when written by hand, and refused when they could be misread."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.contracts import QueryResult
from icltool.errors import StoreError
from icltool.store.evaluations import SettingResult, predictions_file, write_predictions
from icltool.store.plans import SPLITS, Plan, plan_of_sequences, plan_of_setting, read_plan, write_plan
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter

INT64 = st.integers(-(2**63), 2**63 - 1)


def _write(folder: Path, content: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@given(icd_ids=st.dictionaries(INT64, st.lists(INT64, unique=True, max_size=4).map(tuple), min_size=1), name=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_a_plan_is_read_back_as_it_was_written(icd_ids: dict[int, tuple[int, ...]], name: str, tmp_path: Path) -> None:
    written = Plan(icd_ids, name, "caption", "f00d", {**SPLITS, "queries": "train"}, {"method": "i2i", "shots": 2})
    write_plan(tmp_path / "p.json", written)
    result = read_plan(tmp_path / "p.json")
    assert list(result.icd_ids.items()) == list(icd_ids.items()), "in the same order"
    assert (result.dataset, result.task, result.fingerprint) == (name, "caption", "f00d")
    assert (result.splits, result.made) == (written.splits, written.made)
    assert (len(result), result.shots) == (len(icd_ids), min(map(len, icd_ids.values())))


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "p.json"
    write_plan(path, Plan({12: (3, 4), -1: (5, 6)}, "shapes", "vqa", "f00d", SPLITS, {"method": "random", "seed": 1}))
    assert json.loads(path.read_text()) == {
        "schema": "icltool.plan",
        "version": 1,
        "dataset": "shapes",
        "task": "vqa",
        "fingerprint": "f00d",
        "splits": {"demonstrations": "train", "queries": "validation"},
        "order": "prompt order",
        "made": {"method": "random", "seed": 1},
        "plan": {"12": [3, 4], "-1": [5, 6]},
    }
    assert '    "12": [3, 4],\n' in path.read_text(), "one query a line"
    assert read_plan(path).remarks == ()


def test_one_written_by_hand_needs_nothing_else(tmp_path: Path) -> None:
    plan = read_plan(_write(tmp_path, {"plan": {"12": [3, 4], "13": [5]}}))
    assert plan.icd_ids == {12: (3, 4), 13: (5,)}
    assert (plan.dataset, plan.task, plan.fingerprint, plan.splits) == (None, None, None, None)
    assert plan.shots == 1
    assert len(plan.remarks) == 2
    assert "no data set fingerprint" in plan.remarks[0]
    assert "lists of 1 to 2 demonstrations" in plan.remarks[1]


def test_the_digest_stands_for_the_content(tmp_path: Path) -> None:
    first = read_plan(_write(tmp_path, {"plan": {"12": [3, 4]}})).digest
    assert read_plan(_write(tmp_path, {"plan": {"12": [4, 3]}})).digest != first
    assert read_plan(_write(tmp_path, {"plan": {"12": [3, 4]}})).digest == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "must be a JSON object, got list"),
        ({}, "lists no queries"),
        ({"plan": {}}, "lists no queries"),
        ({"plan": [[1, 2]]}, "lists no queries"),
        ({"schema": "icltool-results", "plan": {"1": [2]}}, "has schema 'icltool-results', a plan has"),
        ({"version": 2, "plan": {"1": [2]}}, "has version 2, this icltool reads 1"),
        ({"version": True, "plan": {"1": [2]}}, "has version True"),
        ({"order": "nearest first", "plan": {"1": [2]}}, "the order 'nearest first', ids must be in 'prompt order'"),
        ({"fingerprint": 5, "plan": {"1": [2]}}, "fingerprint must be a string, got 5"),
        ({"made": [], "plan": {"1": [2]}}, "made must be an object"),
        ({"splits": {"index": "train"}, "plan": {"1": [2]}}, "splits must name those of demonstrations and queries"),
        ({"plan": {"one": [2]}}, "query id 'one' is not an integer"),
        ({"plan": {"01": [2]}}, "query id '01' is not an integer"),
        ({"plan": {str(2**63): [2]}}, "is not an integer"),
        ({"plan": {"1": 2}}, "query 1 has 2 instead of a list"),
        ({"plan": {"1": [2.0]}}, r"query 1 lists 2\.0, which is not an integer"),
        ({"plan": {"1": ["2"]}}, "query 1 lists '2'"),
        ({"plan": {"1": [True]}}, "query 1 lists True"),
        ({"plan": {"1": [None]}}, "query 1 lists None"),
        ({"plan": {"1": [2**63]}}, "query 1 lists 9223372036854775808"),
        ({"plan": {"1": [2, 3, 2]}}, "query 1 lists example 2 twice"),
        ('{"plan": {"1": [2], "1": [3]}}', "has the key '1' twice"),
    ],
)
def test_what_is_wrong_is_said(content: Any, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path, content)
    with pytest.raises(StoreError, match=message) as caught:
        read_plan(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent\.json does not exist") as caught:
        read_plan(tmp_path / "absent.json")
    assert "icltool export plan" in str(caught.value.hint)
    with pytest.raises(StoreError, match=r"^plan \S+ cannot be read: "):
        read_plan(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"dataset": "\xe9"}')
    with pytest.raises(StoreError, match="is not valid JSON"):
        read_plan(tmp_path / "latin.json")


def test_an_evaluated_setting_becomes_a_plan(tmp_path: Path) -> None:
    setting = SettingResult("i2i", 2, 1, 2, {}, extra={"options": {"a": 1}})
    rows = [
        {"query_id": q, "icd_ids": icds, "prompt": "", "images": [], "raw": ""}
        for q, icds in ((7, [1, 2]), (3, [2, 1]))
    ]
    full = [{**row, "group": "", "answer": "", "references": [], "scores": {}} for row in rows]
    write_predictions(predictions_file(tmp_path, "i2i", 2, 1), full)
    configuration = {"dataset": "shapes", "task": "vqa", "dataset_fingerprint": "f00d", "model": "m"}
    plan = plan_of_setting(tmp_path, setting, {"configuration": configuration})
    assert list(plan.icd_ids.items()) == [(7, (1, 2)), (3, (2, 1))]
    assert (plan.dataset, plan.task, plan.fingerprint, plan.splits) == ("shapes", "vqa", "f00d", SPLITS)
    expected = {"method": "i2i", "shots": 2, "seed": 1, "options": {"a": 1}, "configuration": configuration}
    assert plan.made == {**expected, "source": tmp_path.name}
    assert plan_of_setting(tmp_path, setting, {}).fingerprint is None


@pytest.mark.parametrize(("queries", "split"), [(None, "train"), ("validation", "validation")])
def test_the_best_beams_become_a_plan(queries: str | None, split: str, tmp_path: Path) -> None:
    configuration = {"dataset": "shapes", "task": "caption", **({"queries": queries} if queries else {})}
    none = np.zeros(2)
    with SequenceWriter(tmp_path / "s.h5", Provenance(configuration, "f00d", 4), 2, 2, 3, 3) as writer:
        for query in (9, 4):
            beams = np.array([[query + 1, query + 2], [query + 2, query + 1]])
            gains = np.zeros((2, 2))
            writer.append(QueryResult(query, np.arange(3), beams, none, gains, none, none, 0.0, 0.0))
    plan = plan_of_sequences(tmp_path / "s.h5")
    assert plan.icd_ids == {4: (5, 6), 9: (10, 11)}
    assert plan.splits == {"demonstrations": "train", "queries": split}
    assert (plan.dataset, plan.task, plan.fingerprint, plan.made["seed"]) == ("shapes", "caption", "f00d", 4)
    assert plan.remarks == (f"{tmp_path / 's.h5'} is unfinished: 2 queries so far",)


def test_time_grows_with_the_number_of_queries(tmp_path: Path) -> None:
    """And not with its square: a tenth of the queries takes about a tenth."""

    def taken(queries: int) -> float:
        icd_ids = {q: tuple(range(q, q + 8)) for q in range(queries)}
        started = time.process_time()
        write_plan(tmp_path / "p.json", Plan(icd_ids, "vqav2", "vqa", "f00d", SPLITS))
        assert read_plan(tmp_path / "p.json").icd_ids == icd_ids
        return time.process_time() - started

    assert taken(60_000) < 40 * taken(6_000)
