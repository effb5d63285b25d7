"""Other weights at the same place: no old result is handed out as theirs, and none is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from icltool.commands.embed import run as embed
from icltool.commands.embed.options import EmbedConfig
from icltool.commands.evaluate import run as evaluate
from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.commands.train import run as train
from icltool.commands.train.options import TrainConfig
from icltool.components.models.shared.weights import packaged_weights
from icltool.errors import StoreError
from icltool.execution.progress import for_terminal
from icltool.store.evaluations import read_evaluation
from tests.commands.evaluate.test_run import config, predictions
from tests.commands.generate.test_run import InterruptedProgress

QUIET = for_terminal(quiet=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "weights"))


def train_on(folder: Path) -> None:
    """What a training into the same folder does: the same files of the same sizes, with other numbers."""
    file = next(folder.glob("*.safetensors"))
    save_file({name: tensor * 0.5 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def evaluated(workspace: Path, place: Path, **options: Any) -> Callable[[], Any]:
    chosen = config(workspace, methods=("zero-shot",), model_path=str(place), test_size=4, **options)
    return lambda: evaluate.run(chosen, QUIET)


def generated(workspace: Path, place: Path, **options: Any) -> GenerateConfig:
    values = {"model": "tiny-idefics", "device": "cpu", "anchors": 3, "candidates": 4, "beam_size": 1, "shots": 1}
    return GenerateConfig(workspace=workspace, model_path=str(place), anchors_at_once=1, **{**values, **options})


def test_an_evaluation_is_not_up_to_date(workspace: Path, place: Path) -> None:
    first = evaluated(workspace, place)()
    assert any("up to date" in line for line in evaluated(workspace, place)().lines())
    train_on(place)
    with pytest.raises(StoreError, match="other weights of model tiny-idefics"):
        evaluated(workspace, place)()
    before = predictions(first.path, "zero-shot-0-shot-seed0")
    again = evaluated(workspace, place, overwrite=True)()
    assert again.path == first.path
    assert not any("up to date" in line for line in again.lines())
    assert predictions(again.path, "zero-shot-0-shot-seed0") != before
    assert any("up to date" in line for line in evaluated(workspace, place)().lines())


def test_what_is_evaluated_anew_does_not_stand_beside_answers_of_the_old(workspace: Path, place: Path) -> None:
    chosen = config(workspace, methods=("zero-shot", "random"), model_path=str(place), test_size=4)
    folder = evaluate.run(chosen, QUIET).path
    train_on(place)
    evaluated(workspace, place, overwrite=True)()
    assert folder is not None
    assert [result.method for result in read_evaluation(folder).results] == ["zero-shot"]
    assert [file.name for file in (folder / "predictions").iterdir()] == ["zero-shot-0-shot-seed0.jsonl"]


def test_answers_of_an_interrupted_evaluation_are_not_gone_on_with(workspace: Path, place: Path) -> None:
    chosen = config(workspace, methods=("random",), model_path=str(place), test_size=8, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(chosen, InterruptedProgress(after=3))
    train_on(place)
    with pytest.raises(StoreError, match="other weights"):
        evaluate.run(chosen, QUIET)


@pytest.mark.parametrize("after", [1, None])
def test_sequences_are_not_gone_on_with_nor_up_to_date(workspace: Path, place: Path, after: int | None) -> None:
    chosen = generated(workspace, place, seed=after or 0)
    if after is None:
        generate.run(chosen, QUIET)
    else:
        with pytest.raises(KeyboardInterrupt):
            generate.run(chosen, InterruptedProgress(after=after))
    train_on(place)
    with pytest.raises(StoreError, match="other weights of model tiny-idefics"):
        generate.run(chosen, QUIET)
    report = generate.run(generated(workspace, place, seed=after or 0, overwrite=True), QUIET)
    assert report.rows()[0]["searched now"] == 3


def test_a_training_is_not_up_to_date(workspace: Path, place: Path) -> None:
    options = {"shots": 1, "examples": 4, "dev_size": 2}
    values: dict[str, Any] = {"learner": "icv-pca", "model": "tiny-idefics", "device": "cpu", "options": options}
    chosen = TrainConfig(workspace=workspace, model_path=str(place), **values)
    train.run(chosen, QUIET)
    assert any("up to date" in line for line in train.run(chosen, QUIET).lines())
    train_on(place)
    with pytest.raises(StoreError, match="other weights of model tiny-idefics"):
        train.run(chosen, QUIET)


def test_embeddings_are_not_up_to_date(workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workspace / "datasets", copy / "datasets")
    place = Path(shutil.copytree(packaged_weights("tiny-clip"), tmp_path / "clip"))
    chosen = EmbedConfig(workspace=copy, encoder="tiny-clip", encoder_path=place, device="cpu")
    embed.run(chosen, QUIET)
    assert any("up to date" in line for line in embed.run(chosen, QUIET).lines())
    train_on(place)
    with pytest.raises(StoreError, match="other weights of encoder tiny-clip"):
        embed.run(chosen, QUIET)


def test_a_relative_path_is_the_same_place_from_everywhere(
    workspace: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(place, other / "weights")
    train_on(other / "weights")
    monkeypatch.chdir(tmp_path)
    first = evaluated(workspace, Path("weights"))()
    assert evaluated(workspace, place)().path == first.path
    monkeypatch.chdir(other)
    assert evaluated(workspace, Path("weights"))().path != first.path
