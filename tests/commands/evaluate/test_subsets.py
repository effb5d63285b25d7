"""Evaluations whose index set is restricted to a subset."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.components.executors.local import LocalExecutor
from icltool.errors import ConfigError, IclError, StoreError
from icltool.store.evaluations import read_evaluation
from icltool.store.records import open_dataset
from icltool.store.subsets import Subset, write_subset
from tests.commands.evaluate.test_run import QUIET, config, predictions


def _index_ids(workspace: Path) -> list[int]:
    return open_dataset(workspace / "datasets" / "shapes" / "vqa").split("train").ids.tolist()


def test_every_method_chooses_among_the_subset(workspace: Path, tmp_path: Path) -> None:
    ids = _index_ids(workspace)[5:300:7]
    file = tmp_path / "subset.json"
    write_subset(file, Subset(dict.fromkeys(ids, 0.5), queries="train", made={"learner": "condacc"}))
    options = {"task": "vqa", "methods": ("random", "i2i", "i2i+kmeans"), "test_size": 6}
    report = evaluate.run(config(workspace, **options, index_subset=file), QUIET)
    assert report.path is not None
    for method in options["methods"]:
        demonstrations = {one for row in predictions(report.path, f"{method}-2-shot-seed0") for one in row["icd_ids"]}
        assert demonstrations <= set(ids)
    assert any(f"{len(ids)} of " in line and "learned by condacc from train queries" in line for line in report.lines())
    provenance = read_evaluation(report.path).provenance
    assert provenance["index_subset"] == {
        "file": str(file),
        "examples": len(ids),
        "queries": "train",
        "made": {"learner": "condacc"},
    }


def test_the_ids_are_in_the_identity_and_nothing_else_of_the_file(workspace: Path, tmp_path: Path) -> None:
    ids = _index_ids(workspace)
    options = {"task": "vqa", "methods": ("random",), "test_size": 4}
    plain = evaluate.run(config(workspace, **options), QUIET)
    first, same, other = (tmp_path / name for name in ("first.json", "same.txt", "other.txt"))
    write_subset(first, Subset(dict.fromkeys(ids[:20], 1.0), queries="train"))
    same.write_text("\n".join(map(str, reversed(ids[:20]))))
    other.write_text("\n".join(map(str, ids[:21])))
    folders = [evaluate.run(config(workspace, **options, index_subset=f), QUIET).path for f in (first, same, other)]
    assert folders[0] == folders[1]
    assert len({plain.path, *folders}) == 3
    assert plain.path is not None
    assert not [key for key in read_evaluation(plain.path).provenance["configuration"] if "subset" in key]


def test_an_index_size_draws_from_the_subset(workspace: Path, tmp_path: Path) -> None:
    ids = _index_ids(workspace)[:12]
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(map(str, ids)))
    options = {"task": "vqa", "methods": ("random",), "test_size": 8, "index_size": 6}
    report = evaluate.run(config(workspace, **options, index_subset=file), QUIET)
    assert report.path is not None
    demonstrations = {one for row in predictions(report.path, "random-2-shot-seed0") for one in row["icd_ids"]}
    assert demonstrations <= set(ids)
    assert len(demonstrations) <= 6


@pytest.mark.parametrize(
    ("subset", "error", "message"),
    [
        (Subset({}), StoreError, "has no ids"),
        (Subset({-5: None}), StoreError, "names example -5, which the index set does not have"),
        (Subset({0: None}, queries="validation"), ConfigError, "was learned from validation queries"),
        (Subset({0: None}, fingerprint="0" * 32), StoreError, "was made for another data set"),
    ],
)
def test_a_subset_that_cannot_be_used_is_one_line(
    subset: Subset, error: type[IclError], message: str, workspace: Path, tmp_path: Path
) -> None:
    file = tmp_path / "subset.json"
    write_subset(file, subset)
    with pytest.raises(error, match=message) as caught:
        evaluate.run(config(workspace, task="vqa", methods=("random",), index_subset=file), QUIET)
    assert "\n" not in caught.value.message
    assert not (workspace / "evaluations").exists()


class Sending(LocalExecutor):
    """Workers of this process that see what was sent, and not the file that it was sent from."""

    def __init__(self, target: Path, file: Path) -> None:
        super().__init__()
        self.target, self.file = target, file

    def ship(self, paths: Mapping[str, Path]) -> Sending:
        for name, path in paths.items():
            shutil.copytree(path, self.target / name)
        self.file.unlink()
        return self

    def local(self, name: str) -> Path:
        return self.target / name


def test_workers_that_share_no_disk_are_sent_the_file(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, ids = tmp_path / "ids.txt", _index_ids(workspace)[:30]
    file.write_text("\n".join(map(str, ids)))
    options = {"task": "vqa", "methods": ("random",), "test_size": 4, "index_subset": file}
    here = evaluate.run(config(workspace, **options), QUIET)
    assert here.path is not None
    expected = predictions(here.path, "random-2-shot-seed0")
    executor = Sending(tmp_path / "sent", file)
    monkeypatch.setattr(EvaluateConfig, "open_executor", lambda self: executor)
    there = config(workspace, **options, overwrite=True, executor="ray", ship_data=True)
    assert evaluate.run(there, QUIET).path == here.path
    assert not file.exists()
    assert predictions(here.path, "random-2-shot-seed0") == expected


def test_more_shots_than_ids_are_one_line(workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(map(str, _index_ids(workspace)[:3])))
    with pytest.raises(ConfigError, match="4 shots from an index set of 3"):
        evaluate.run(config(workspace, task="vqa", methods=("random",), shots=(4,), index_subset=file), QUIET)
