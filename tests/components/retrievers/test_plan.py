"""The retriever that replays a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.components.retrievers.plan import PlanOptions, PlanRetriever
from icltool.contracts import IndexSet, QuerySet
from icltool.engine.demonstrations import checked_rows
from icltool.errors import ConfigError, DataError, PluginError, StoreError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_retriever, make_anchors, make_index, make_queries


def plan_file(folder: Path, icd_ids: dict[int, list[int]], **head: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps({**head, "plan": {str(query): icds for query, icds in icd_ids.items()}}))
    return path


def far_from_leaks(index: IndexSet, shots: int) -> dict[int, list[int]]:
    """For every id of the index set some ids that leak nothing to any query of that id, drawn once per id."""
    every = np.arange(len(index))
    rng = np.random.default_rng(4)
    plan: dict[int, list[int]] = {}
    for queries in (make_queries(index, every), make_anchors(index, every)):
        for position, query in enumerate(queries.ids.tolist()):
            plan.setdefault(query, rng.permutation(index.ids).tolist())
            leaking = set(index.ids[index.leaking_rows(queries, position)].tolist())
            plan[query] = [icd for icd in plan[query] if icd not in leaking]
    return {query: icds[:shots] for query, icds in plan.items()}


def test_it_conforms(tmp_path: Path) -> None:
    index = make_index(60)
    path = plan_file(tmp_path, far_from_leaks(index, 5))
    check_retriever(lambda: component("retrievers", "plan", file=str(path)), index=index)


def test_it_is_registered_without_being_imported() -> None:
    assert (
        load_registry().get("retrievers", "plan").registration.target
        == "icltool.components.retrievers.plan:PlanRetriever"
    )


INDEX = IndexSet(np.array([50, 10, 40, 20]), np.array([1, 2, 3, 4]), np.full(4, -1))
QUERIES = QuerySet(np.array([7, 8]), np.array([90, 91]), np.full(2, -1))


def test_rows_by_id_in_the_plan_s_order(tmp_path: Path) -> None:
    retriever = PlanRetriever(PlanOptions(file=plan_file(tmp_path, {8: [20, 50, 10], 7: [10, 40, 50], 99: [1, 2, 3]})))
    assert (retriever.needs, retriever.ranked, retriever.nested) == (frozenset(), False, False)
    assert (retriever.label, retriever.shots, retriever.fingerprint) == ("mine", 3, None)
    assert retriever.retrieve(INDEX, QUERIES, 3, 0).tolist() == [[1, 2, 0], [3, 0, 1]]
    assert "no data set fingerprint" in retriever.remarks[0]


def test_fewer_shots_are_the_last_ones(tmp_path: Path) -> None:
    retriever = PlanRetriever(PlanOptions(file=plan_file(tmp_path, {8: [20, 50, 10], 7: [10, 40, 50]})))
    assert retriever.retrieve(INDEX, QUERIES, 2, 0).tolist() == [[2, 0], [0, 1]]
    assert retriever.retrieve(INDEX, QUERIES, 0, 0).shape == (2, 0)


def test_more_shots_name_the_length(tmp_path: Path) -> None:
    path = plan_file(tmp_path, {8: [20, 50], 7: [10, 40]})
    with pytest.raises(
        ConfigError, match=r"mine\.json has 2 demonstrations per query, but --shots asks for 3"
    ) as caught:
        PlanRetriever(PlanOptions(file=path)).retrieve(INDEX, QUERIES, 3, 0)
    assert "ask for 2 shots" in str(caught.value.hint)
    path = plan_file(tmp_path, {8: [20], 7: [10, 40]})
    assert PlanRetriever(PlanOptions(file=path)).shots == 1
    with pytest.raises(ConfigError, match="has 1 demonstrations for query 8, but --shots asks for 2"):
        PlanRetriever(PlanOptions(file=path)).retrieve(INDEX, QUERIES, 2, 0)
    with pytest.raises(ConfigError, match="has 1 demonstrations for query 8, but --shots asks for 3"):
        PlanRetriever(PlanOptions(file=path)).retrieve(INDEX, QUERIES, 3, 0)


def test_ids_of_another_data_set_are_counted_and_named(tmp_path: Path) -> None:
    path = plan_file(tmp_path, {8: [20, 51], 7: [11, 40]}, dataset="coco2017", task="caption")
    with pytest.raises(
        DataError, match="lists 2 demonstrations that the index set of 4 examples does not have: 11, 51"
    ):
        PlanRetriever(PlanOptions(file=path)).retrieve(INDEX, QUERIES, 2, 0)
    path = plan_file(tmp_path, {8: [20, 50]}, dataset="coco2017", task="caption")
    with pytest.raises(DataError, match="no entry for 1 of 2 queries: 7 ") as caught:
        PlanRetriever(PlanOptions(file=path)).retrieve(INDEX, QUERIES, 2, 0)
    assert "coco2017, caption" in str(caught.value.hint)
    many = QuerySet(np.arange(100, 108), np.arange(8), np.full(8, -1))
    with pytest.raises(DataError, match="no entry for 8 of 8 queries: 100, 101, 102, 103, 104 …"):
        PlanRetriever(PlanOptions(file=path)).retrieve(INDEX, many, 2, 0)


def test_a_plan_for_anchors_is_not_for_other_queries_of_the_same_ids(tmp_path: Path) -> None:
    splits = {"demonstrations": "train", "queries": "train"}
    retriever = PlanRetriever(
        PlanOptions(file=plan_file(tmp_path, {7: [10], 8: [20]}, splits=splits, fingerprint="f00d"))
    )
    assert retriever.fingerprint == "f00d"
    with pytest.raises(DataError, match="is for queries of the split 'train'"):
        retriever.retrieve(INDEX, QUERIES, 1, 0)
    anchors = QuerySet(QUERIES.ids, QUERIES.image_ids, QUERIES.groups, same_split=True)
    assert retriever.retrieve(INDEX, anchors, 1, 0).tolist() == [[1], [3]]


def test_a_leak_in_a_plan_is_refused_by_the_stage_s_check(tmp_path: Path) -> None:
    queries = QuerySet(QUERIES.ids, np.array([90, 4]), QUERIES.groups)
    rows = PlanRetriever(PlanOptions(file=plan_file(tmp_path, {7: [10], 8: [20]}))).retrieve(INDEX, queries, 1, 0)
    with pytest.raises(PluginError, match="'plan' chose example 20 for query 8, which is the same image"):
        checked_rows("plan", rows, INDEX, queries, 1)


def test_another_content_is_another_identity(tmp_path: Path) -> None:
    first = PlanRetriever(PlanOptions(file=plan_file(tmp_path, {7: [10]}))).identity()
    assert PlanRetriever(PlanOptions(file=plan_file(tmp_path, {7: [20]}))).identity() != first


def test_no_plan_no_retriever(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent\.json does not exist"):
        component("retrievers", "plan", file=tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="retriever 'plan'"):
        component("retrievers", "plan")
