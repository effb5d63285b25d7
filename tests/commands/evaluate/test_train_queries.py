"""Evaluations of queries of the index split itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.export import run as export
from icltool.commands.export.options import ExportConfig
from icltool.commands.report.page.evaluations import evaluations_page
from icltool.contracts.randomness import TRAIN_QUERIES, drawn_ids
from icltool.errors import ConfigError, DataError, IclError
from icltool.results.delimited import results_rows
from icltool.store.evaluations import read_evaluation
from icltool.store.plans import read_plan
from icltool.store.records import open_dataset
from icltool.store.subsets import Subset, write_subset
from tests.commands.evaluate.test_run import QUIET, config, predictions

TRAIN: dict[str, Any] = {"task": "vqa", "queries": "train", "query_size": 9}


@pytest.mark.parametrize("method", ["random", "i2i", "random:fixed=true"])
def test_held_out_examples_are_asked_and_no_demonstration_is_one_of_them_or_leaks(workspace: Path, method: str) -> None:
    report = evaluate.run(config(workspace, methods=(method,), **TRAIN), QUIET)
    assert report.path is not None
    assert "9 train queries" in report.title
    assert any(line.startswith("train queries: 9 examples of the index set") for line in report.lines())
    records = open_dataset(workspace / "datasets" / "shapes" / "vqa").split("train")
    rows = predictions(report.path, f"{report.results[0].method}-2-shot-seed0")
    query_ids = {row["query_id"] for row in rows}
    assert len(query_ids) == 9
    assert query_ids <= set(records.ids.tolist())
    for row in rows:
        query = records[records.row_of(row["query_id"])]
        assert row["references"] == list(query.references)
        for icd in (records[records.row_of(one)] for one in row["icd_ids"]):
            assert icd.id not in query_ids
            assert icd.image_id != query.image_id
            assert not query.group or icd.group != query.group


def test_the_draw_is_by_id_and_nested(workspace: Path) -> None:
    few, more = (
        evaluate.run(config(workspace, methods=("zero-shot",), **{**TRAIN, "query_size": size}), QUIET)
        for size in (4, 7)
    )
    assert few.path is not None
    assert more.path is not None
    query_ids = [{row["query_id"] for row in predictions(r.path, "zero-shot-0-shot-seed0")} for r in (few, more)]
    assert query_ids[0] < query_ids[1]
    ids = open_dataset(workspace / "datasets" / "shapes" / "vqa").split("train").ids
    order = ids[drawn_ids(TRAIN_QUERIES, ids)].tolist()
    assert set(order[:4]) == query_ids[0]
    part = np.random.default_rng(0).permutation(ids)[: len(ids) // 2]
    assert part[drawn_ids(TRAIN_QUERIES, part)].tolist() == [one for one in order if one in set(part.tolist())]


def test_train_and_validation_queries_are_kept_apart(workspace: Path) -> None:
    options = {"methods": ("random",), "task": "vqa"}
    usual = evaluate.run(config(workspace, **options, test_size=5), QUIET)
    train = evaluate.run(config(workspace, **options, queries="train", query_size=5), QUIET)
    assert usual.path is not None
    assert train.path is not None
    assert usual.path != train.path
    stored = [read_evaluation(report.path) for report in (usual, train)]
    configurations = [one.provenance["configuration"] for one in stored]
    assert not {"queries", "query_size"} & set(configurations[0])
    assert (configurations[1]["queries"], configurations[1]["query_size"]) == ("train", 5)
    rows = [results_rows(one.results, one.provenance)[0] for one in stored]
    assert [row["split"] for row in rows] == ["validation", "train"]
    page = evaluations_page([usual.path, train.path], workspace).page
    assert "shapes (vqa), train queries" in page.title
    assert len({source.title for source in page.sources}) == 2
    assert len(page.queries) == 10
    assert all(query.question for query in page.queries)


def test_what_is_exported_says_train_queries(workspace: Path, tmp_path: Path) -> None:
    report = evaluate.run(config(workspace, methods=("random",), **TRAIN), QUIET)
    assert report.path is not None
    table, plan = tmp_path / "table.md", tmp_path / "plan.json"
    exported = export.run(ExportConfig(workspace=workspace, what="results", format="markdown", output=table), QUIET)
    assert exported.title == f"Exported {report.path.name} (train queries)"
    assert table.read_text().startswith(f"## {report.path.name} (train queries)\n")
    export.run(ExportConfig(workspace=workspace, what="plan", output=plan), QUIET)
    assert read_plan(plan).splits == {"demonstrations": "train", "queries": "train"}
    again = evaluate.run(config(workspace, plans=(plan,), methods=(), **TRAIN), QUIET)
    rows = [predictions(report.path, f"{name}-2-shot-seed0") for name in ("random", again.results[0].method)]
    assert [row["icd_ids"] for row in rows[0]] == [row["icd_ids"] for row in rows[1]]
    with pytest.raises(DataError, match="is for queries of the split 'train'"):
        evaluate.run(config(workspace, plans=(plan,), methods=(), task="vqa"), QUIET)


def test_a_subset_loses_its_ids_that_are_asked(workspace: Path, tmp_path: Path) -> None:
    ids = open_dataset(workspace / "datasets" / "shapes" / "vqa").split("train").ids
    query_ids = ids[drawn_ids(TRAIN_QUERIES, ids)[:9]]
    others = np.setdiff1d(ids, query_ids)[:40]
    file = tmp_path / "subset.json"
    write_subset(file, Subset(dict.fromkeys([*query_ids[:3].tolist(), *others.tolist()]), queries="train"))
    report = evaluate.run(config(workspace, methods=("random",), index_subset=file, **TRAIN), QUIET)
    assert report.path is not None
    rows = predictions(report.path, "random-2-shot-seed0")
    assert {one for row in rows for one in row["icd_ids"]} <= set(others.tolist())
    assert {row["query_id"] for row in rows} == set(query_ids.tolist())
    assert any("to 40 of" in line and "3 of its ids are queries" in line for line in report.lines())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"query_size": None}, ConfigError, "--queries train needs --query-size, the number of examples"),
        ({"test_size": 5}, ConfigError, "--test-size takes validation queries"),
        ({"query_size": 10**6}, ConfigError, "leave no demonstrations"),
        ({"queries": "validation"}, ConfigError, "--query-size is for --queries train"),
    ],
)
def test_sizes_that_do_not_go_together_are_one_line(
    options: dict[str, Any], error: type[IclError], message: str, workspace: Path
) -> None:
    with pytest.raises(error, match=message):
        evaluate.run(config(workspace, methods=("random",), **{**TRAIN, **options}), QUIET)
    assert not (workspace / "evaluations").exists()
