"""Demonstrations of one prepared data set for the queries of another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.export import run as export
from icltool.commands.export.options import ExportConfig
from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.commands.report import run as report
from icltool.commands.report.options import ReportConfig
from icltool.errors import ConfigError, StoreError
from icltool.execution.progress import SilentProgress
from icltool.store.evaluations import read_evaluation, read_predictions
from icltool.store.inventory.inventory import inventory
from icltool.store.paired import pair_fingerprint
from icltool.store.prepared import MANIFEST, open_dataset
from icltool.store.workspace import Workspace

QUIET = SilentProgress()


@pytest.fixture
def two(workspace: Path) -> Path:
    """A workspace with a second data set, `other`, which holds what `shapes` holds, under another name and version."""
    folder = workspace / "datasets" / "other" / "vqa"
    shutil.copytree(workspace / "datasets" / "shapes" / "vqa", folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "name": "other"}))
    for file in (workspace / "embeddings").glob("shapes-vqa-*"):
        shutil.copy(file, file.with_name(file.name.replace("shapes", "other")))
    return workspace


def config(workspace: Path, **options: Any) -> EvaluateConfig:
    usual = {
        "dataset": "shapes",
        "task": "vqa",
        "model": "tiny-idefics",
        "device": "cpu",
        "shots": (1,),
        "test_size": 3,
    }
    return EvaluateConfig(workspace=workspace, **{**usual, "methods": ("i2i",), **options})


def test_one_supplies_demonstrations_and_the_other_queries(two: Path, tmp_path: Path) -> None:
    alone = evaluate.run(config(two), QUIET)
    paired = evaluate.run(config(two, index_dataset="other"), QUIET)
    assert paired.path is not None
    assert alone.path is not None
    assert paired.path != alone.path
    assert paired.path.name.startswith("shapes+other-vqa-")
    rows, same = (
        list(read_predictions(p / "predictions" / "i2i-1-shot-seed0.jsonl")) for p in (paired.path, alone.path)
    )
    assert [(r["query_id"], r["icd_ids"], r["answer"]) for r in rows] == [
        (r["query_id"], r["icd_ids"], r["answer"]) for r in same
    ]
    configuration = read_evaluation(paired.path).provenance["configuration"]
    fingerprint = open_dataset(two / "datasets" / "shapes" / "vqa").fingerprint
    assert configuration["dataset"] == "shapes+other"
    assert (configuration["query_dataset"], configuration["index_dataset"]) == ("shapes", "other")
    assert configuration["fingerprints"] == {"queries": fingerprint, "index": fingerprint}
    assert configuration["dataset_fingerprint"] == pair_fingerprint(fingerprint, fingerprint)
    assert not {"index_dataset", "query_dataset"} & set(read_evaluation(alone.path).provenance["configuration"])
    assert any(line.startswith("demonstrations are examples of other, queries of shapes") for line in paired.lines())
    again = evaluate.run(config(two, index_dataset="other"), QUIET)
    assert any(line.startswith("up to date: 1 of 1") for line in again.lines())

    chat = export.run(ExportConfig(workspace=two, what="chat", input=paired.path, output=tmp_path / "c.jsonl"), QUIET)
    assert chat.path is not None
    assert len(chat.path.read_text().splitlines()) == 3
    page = report.run(ReportConfig(workspace=two, output=tmp_path / "report.html"), QUIET)
    assert page.path is not None
    assert "shapes+other" in page.path.read_text()
    (listed,) = [a for a in inventory(Workspace(two)).artefacts if a.name.startswith("shapes+other-vqa")]
    assert listed.unreachable == "", "`icltool clean` does not take its data set to be gone"


def test_sequences_for_the_queries_alone(two: Path) -> None:
    options: dict[str, Any] = {"dataset": "shapes", "task": "vqa", "index_dataset": "other", "scorer": "cosine"}
    made = generate.run(GenerateConfig(workspace=two, queries="validation", anchors=3, candidates=4, **options), QUIET)
    assert made.path is not None
    assert made.path.name.startswith("shapes+other-vqa-")
    with pytest.raises(ConfigError, match="--index-dataset is for --queries validation"):
        generate.run(GenerateConfig(workspace=two, **options), QUIET)


def test_what_does_not_go_together(two: Path) -> None:
    with pytest.raises(ConfigError, match="--queries train takes queries from the index set, which is that of other"):
        evaluate.run(config(two, index_dataset="other", queries="train", query_size=3, test_size=-1), QUIET)
    with pytest.raises(StoreError, match="data set 'nothing' for task 'vqa' is not prepared"):
        evaluate.run(config(two, index_dataset="nothing"), QUIET)
    plain = evaluate.run(config(two, index_dataset="shapes", methods=("random",)), QUIET)
    assert plain.path is not None
    assert plain.path.name.startswith("shapes-vqa-")
