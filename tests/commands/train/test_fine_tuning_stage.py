"""`icltool train captioner` as a stage: its folder and record, and what it refuses before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.prepare import run as prepare
from icltool.commands.prepare.options import PrepareConfig
from icltool.commands.train import run as train
from icltool.components.models.shared.fine_tuned import read_fine_tuned
from icltool.errors import ConfigError, IclError
from icltool.store.records import open_dataset
from tests.commands.train.fine_tuning import QUIET, SMALL, fine_tuned, train_config
from tests.components.datasets.builders import write_karpathy
from tests.components.datasets.caption_builders import write_sherlock
from tests.components.learners.synthetic import RecordingProgress


@pytest.fixture(scope="module")
def home(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that this file's trainings share."""
    folder = tmp_path_factory.mktemp("fine-tuning") / "ws"
    shutil.copytree(small_world / "datasets" / "shapes" / "caption", folder / "datasets" / "shapes" / "caption")
    return folder


@pytest.fixture(scope="module")
def first(home: Path) -> Path:
    """The folder of a finished training."""
    path = fine_tuned(home).path
    assert path is not None
    return path


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return content


def refused(workspace: Path, **options: Any) -> IclError:
    """The error, which is one line, and before which nothing was written."""
    before = set((workspace / "checkpoints").glob("*"))
    with pytest.raises(IclError) as caught:
        fine_tuned(workspace, **options)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not {f for f in (workspace / "checkpoints").glob("*") if f not in before and any(f.glob("*.safetensors"))}
    return caught.value


def test_a_folder_with_weights_and_a_record(home: Path, first: Path) -> None:
    dataset = open_dataset(home / "datasets" / "shapes" / "caption")
    assert first.parent == home / "checkpoints"
    assert first.name.startswith("captioner-shapes-caption-tiny-blip2-")
    result = record(first)
    assert result["checkpoints"] == {"best": "best.safetensors", "last": "last.safetensors"}
    assert result["identity"]["model"] == "tiny-blip2"
    assert result["identity"]["options"]["lr"] == SMALL["lr"]
    assert result["identity"]["dataset_fingerprint"] == dataset.fingerprint
    assert "started_from" not in result["identity"]
    assert result["provenance"]["fine_tuned"] is True
    assert result["provenance"]["plugins"].keys() == {"learners/captioner", "models/tiny-blip2"}
    for name in result["checkpoints"].values():
        weights = read_fine_tuned(first / name)
        assert (weights.model, weights.about["dataset"], weights.about["task"]) == ("tiny-blip2", "shapes", "caption")
        assert weights.about["examples"] == SMALL["max_train_size"]
    assert "tiny-blip2, fine-tuned on shapes (caption)" in (first / "README.md").read_text(encoding="utf-8")


def test_a_second_call_finds_it_up_to_date(home: Path, first: Path) -> None:
    written = (first / "best.safetensors").stat().st_mtime_ns
    again = fine_tuned(home, {"workers": 0})
    assert again.path == first
    assert again.remarks[0].startswith("up to date")
    assert [row["checkpoint"] for row in again.rows()] == ["best", "last"]
    assert any(f"--model {first}" in line for line in again.remarks)
    assert (first / "best.safetensors").stat().st_mtime_ns == written


def test_other_options_are_another_training(home: Path, first: Path) -> None:
    other = fine_tuned(home, {"max_train_size": 8}).path
    assert other is not None
    assert other.parent == first.parent
    assert other != first
    assert record(other)["identity"]["options"]["max_train_size"] == 8
    assert read_fine_tuned(other / "best.safetensors").digest != read_fine_tuned(first / "best.safetensors").digest


def test_scst_goes_on_with_a_trained_captioner(home: Path, first: Path) -> None:
    path = fine_tuned(home, {"scst": True, "max_train_size": 8, "freeze": "language_model"}, model_path=str(first)).path
    assert path is not None
    assert record(path)["identity"]["started_from"] == read_fine_tuned(first / "best.safetensors").digest
    weights = read_fine_tuned(path / "best.safetensors")
    assert weights.base_hash == read_fine_tuned(first / "best.safetensors").base_hash, (
        "laid over what the first one began with"
    )
    assert weights.about["options"]["scst"] is True


@pytest.mark.parametrize("arguments", [True, "true"])
def test_scst_without_a_trained_captioner(home: Path, arguments: Any) -> None:
    error = refused(home, options={"scst": arguments})
    assert isinstance(error, ConfigError)
    assert "scst=true needs the weights of a captioner" in error.message
    assert "--model-path CHECKPOINT" in str(error.hint)


def test_a_text_that_says_no_is_no_scst(home: Path) -> None:
    path = fine_tuned(home, {"scst": "false", "max_train_size": 8}).path
    assert path is not None
    assert read_fine_tuned(path / "best.safetensors").about["options"]["scst"] is False


def test_a_model_that_cannot_be_fine_tuned(home: Path) -> None:
    error = refused(home, model="tiny-idefics")
    assert "tiny-idefics cannot be fine-tuned" in error.message
    assert "blip2" in str(error.hint)


def test_options_of_selectors(home: Path, tmp_path: Path) -> None:
    error = refused(home, sequences=tmp_path / "some.h5")
    assert "--sequences: captioner learns from examples" in error.message
    assert "leave --sequences out" in str(error.hint)


def test_a_task_whose_answers_are_chosen_from_a_list(tmp_path: Path) -> None:
    root, home = write_sherlock(tmp_path / "data"), tmp_path / "ws"
    prepare.run(PrepareConfig(workspace=home, name="sherlock", task="inference-choice", root=root), QUIET)
    error = refused(home, task="inference-choice")
    assert "those of task inference-choice are chosen from a list" in error.message


def test_weights_are_chosen_by_the_development_split_where_there_is_one(tmp_path: Path) -> None:
    """The official split of COCO has one; of a data set without, images are held out (see test_fine_tuning_job)."""
    root, home = write_karpathy(tmp_path / "data"), tmp_path / "ws"
    prepare.run(PrepareConfig(workspace=home, name="coco-karpathy", root=root), QUIET)
    assert open_dataset(home / "datasets" / "coco-karpathy" / "caption").splits == (
        "train",
        "validation",
        "development",
    )
    progress = RecordingProgress()
    path = train.run(train_config(home, dataset="coco-karpathy"), progress).path
    assert path is not None
    assert "training examples: 3; development examples: 1" in progress.details
    assert read_fine_tuned(path / "best.safetensors").about["examples"] == 3
