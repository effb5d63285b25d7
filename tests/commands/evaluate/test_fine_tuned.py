"""The method `finetuned`: which weights it takes, what it refuses, and that its answers are those of the fine-tuned model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icltool.commands.evaluate import answering, costs, fine_tuned, run as evaluate
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.settings import Settings
from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.components.models.shared.fine_tuned import read_fine_tuned, save_fine_tuned
from icltool.errors import ConfigError, IclError, StoreError
from icltool.plugin.manager import component
from icltool.store.evaluations import predictions_file, read_predictions
from icltool.store.records import open_dataset
from icltool.store.sequences import SequenceFile
from tests.commands.evaluate.test_resuming import Spy, content
from tests.commands.generate.test_run import InterruptedProgress
from tests.commands.train.fine_tuning import QUIET, SEARCH, SMALL, fine_tuned as fine_tune

BEST, LAST = "best.safetensors", "last.safetensors"


def config(workspace: Path, **options: Any) -> EvaluateConfig:
    start: dict[str, Any] = {"model": "tiny-blip2", "device": "cpu", "task": "caption", "test_size": 8, "cost": False}
    start |= {"methods": ("finetuned",), "metrics": ("bleu-1",), **SEARCH}
    return EvaluateConfig(workspace=workspace, **{**start, **options})


def chosen(workspace: Path, **options: Any) -> Path:
    """The file that a call answers with."""
    (method,) = (m for m in Settings(Inputs(config(workspace, **options))).methods if m.label == "finetuned")
    assert method.weights is not None
    assert method.options["file"] == str(method.weights)
    return method.weights


def refused(workspace: Path, **options: Any) -> IclError:
    with pytest.raises(IclError) as caught:
        chosen(workspace, **options)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def another(folder: Path, name: str, age: int, finished: bool = True, **identity: Any) -> Path:
    """A further training, which ended `age` seconds after 1970 began."""
    copied = Path(shutil.copytree(folder, folder.with_name(f"captioner-shapes-caption-{name}")))
    record = copied / "training.json"
    values = json.loads(record.read_text(encoding="utf-8"))
    values["identity"] |= identity
    record.write_text(json.dumps(values), encoding="utf-8") if finished else record.unlink()
    for file in copied.glob("*.safetensors"):
        os.utime(file, (age, age))
    return copied


def of_another_model(file: Path) -> Path:
    save_fine_tuned(file, torch.nn.Linear(2, 2), ["weight"], "blip2-opt-2.7b", "", "0" * 12, {}, {})
    return file


def answers(folder: Path | None, method: str) -> list[dict[str, Any]]:
    """Rows of predictions without what they are compared with."""
    assert folder is not None
    return read_predictions(predictions_file(folder, method, 0, 0))


def test_the_newest_training_that_fits_is_taken(fine_tuned_world: Path, trained: Path) -> None:
    for file in trained.glob("*.safetensors"):
        os.utime(file, (50, 50))
    assert chosen(fine_tuned_world) == trained / BEST
    new = another(trained, "new", 200)
    another(trained, "old", 100)
    another(trained, "model", 500, model="blip2-opt-2.7b")
    another(trained, "unfinished", 600, finished=False)
    data = another(trained, "data", 300, dataset_fingerprint="of another version")
    another(trained, "older-data", 250, dataset_fingerprint="of another version")
    assert chosen(fine_tuned_world) == new / BEST
    for folder in (trained, new, new.with_name("captioner-shapes-caption-old")):
        shutil.rmtree(folder)
    assert chosen(fine_tuned_world) == data / BEST, "of another version of the data, where there is no other"


def test_what_it_was_trained_on_is_said(fine_tuned_world: Path, trained: Path) -> None:
    inputs = Inputs(config(fine_tuned_world))
    weights = fine_tuned.read(trained / BEST)
    assert fine_tuned.remarks(inputs, "finetuned", weights) == [f"finetuned: {trained / BEST}"]
    state, about = torch.nn.Linear(2, 2), dict(weights.about)
    for change, message in (
        ({"dataset_fingerprint": "x"}, "finetuned was trained on another version of shapes (caption)"),
        ({"task": "style"}, "finetuned was trained on shapes (style), and this is shapes (caption)"),
    ):
        file = trained / "x.safetensors"
        save_fine_tuned(file, state, ["weight"], "tiny-blip2", "", "", {}, {**about, **change})
        assert fine_tuned.remarks(inputs, "finetuned", read_fine_tuned(file))[1] == message


def test_other_weights_to_begin_with_are_said(fine_tuned_world: Path, trained: Path, tmp_path: Path) -> None:
    weights = replace(fine_tuned.read(trained / BEST), base=str(tmp_path / "a"))
    for path, noted in ((tmp_path / "a", False), (tmp_path / "b", True)):
        lines = fine_tuned.remarks(Inputs(config(fine_tuned_world, model_path=str(path))), "finetuned", weights)
        assert any("began with the weights in" in line for line in lines) is noted


def test_weights_are_named_by_options(fine_tuned_world: Path, trained: Path, tmp_path: Path) -> None:
    another(trained, "newer", 2**33)
    elsewhere = tmp_path / "mine.safetensors"
    shutil.copyfile(trained / BEST, elsewhere)
    folder = {"finetuned.folder": str(trained)}
    assert chosen(fine_tuned_world, method_options=folder) == trained / BEST
    assert chosen(fine_tuned_world, method_options={**folder, "finetuned.checkpoint": "last"}) == trained / LAST
    assert chosen(fine_tuned_world, method_options={"finetuned": {"file": str(elsewhere)}}) == elsewhere
    digests = [
        Settings(Inputs(config(fine_tuned_world, method_options=value))).groups[0][0].digest
        for value in (folder, {"finetuned.file": str(elsewhere)})
    ]
    assert digests[0] == digests[1], "what they hold makes the setting, wherever they lie"


def test_weights_are_named_by_checkpoint(fine_tuned_world: Path, trained: Path) -> None:
    another(trained, "newer", 2**33)
    assert chosen(fine_tuned_world, checkpoint=trained) == trained / BEST
    assert (
        chosen(fine_tuned_world, checkpoint=trained, method_options={"finetuned.checkpoint": "last"}) == trained / LAST
    )


def test_nothing_was_trained(fine_tuned_world: Path, trained: Path) -> None:
    assert (
        "no fine-tuned blip2-opt-2.7b for shapes (caption)" in refused(fine_tuned_world, model="blip2-opt-2.7b").message
    )
    (trained / "training.json").unlink()
    error = refused(fine_tuned_world)
    assert error.message.startswith("the training is unfinished for shapes (caption)")
    assert error.hint == "run `icltool train captioner --model tiny-blip2 --dataset shapes --task caption`"
    shutil.rmtree(trained)
    assert "no fine-tuned tiny-blip2 for shapes (caption)" in refused(fine_tuned_world).message


def _other_model(folder: Path) -> dict[str, Any]:
    return {"method_options": {"finetuned.file": str(of_another_model(folder / "other.safetensors"))}}


def _file_and_folder(folder: Path) -> dict[str, Any]:
    return {"method_options": {"finetuned.file": str(folder / BEST), "finetuned.folder": str(folder)}}


def _damaged(folder: Path) -> dict[str, Any]:
    (folder / "cut.safetensors").write_bytes((folder / BEST).read_bytes()[:500])
    return {"method_options": {"finetuned.file": str(folder / "cut.safetensors")}}


def _by_a_selector(folder: Path) -> dict[str, Any]:
    selector = folder.parent / "lever-lm-shapes-caption-00"
    selector.mkdir()
    (selector / "training.json").write_text(json.dumps({"identity": {"learner": "lever-lm"}}))
    return {"checkpoint": selector}


def _nothing(folder: Path) -> dict[str, Any]:
    (folder.parent / "empty").mkdir()
    return {"checkpoint": folder.parent / "empty"}


@pytest.mark.parametrize(
    ("options", "kind", "message", "hint"),
    [
        (lambda f: {"method_options": {"finetuned.fil": "x"}}, ConfigError, "has no option 'fil'", "file"),
        (lambda f: {"model_path": str(f)}, ConfigError, "holds fine-tuned weights already", "--method zero-shot"),
        (lambda f: {"model": str(f)}, ConfigError, "holds fine-tuned weights already", "--method zero-shot"),
        (_other_model, ConfigError, "is a fine-tuned blip2-opt-2.7b, and this call's", "--model blip2-opt-2.7b"),
        (_file_and_folder, ConfigError, "and so does finetuned.folder", "leave one"),
        (_damaged, StoreError, "is truncated or not a safetensors file", "restore it"),
        (
            lambda f: {"method_options": {"finetuned.file": str(f / "x.safetensors")}},
            StoreError,
            "x.safetensors does not exist",
            "icltool train captioner --model tiny-blip2",
        ),
        (
            lambda f: {"method_options": {"finetuned.file": str(f)}},
            StoreError,
            "is not a file",
            "finetuned.folder a checkpoint folder",
        ),
        (
            lambda f: {"method_options": {"finetuned.folder": str(f), "finetuned.checkpoint": "worst"}},
            StoreError,
            "checkpoints there: best, last",
            "finetuned.checkpoint=last",
        ),
        (lambda f: {"checkpoint": f / "no"}, StoreError, "no does not exist", "--checkpoint"),
        (_by_a_selector, StoreError, "was trained by lever-lm, finetuned reads", "train captioner"),
        (_nothing, StoreError, "holds no finished training", "train captioner"),
    ],
)
def test_mistakes(
    fine_tuned_world: Path,
    trained: Path,
    options: Callable[[Path], dict[str, Any]],
    kind: type,
    message: str,
    hint: str,
) -> None:
    error = refused(fine_tuned_world, **options(trained))
    assert isinstance(error, kind)
    assert message in error.message
    assert hint in str(error.hint)


def test_a_selector_s_checkpoint_is_left_to_the_selector(fine_tuned_world: Path, trained: Path) -> None:
    inputs = Inputs(config(fine_tuned_world, methods=("lever-lm", "finetuned"), **_by_a_selector(trained)))
    assert fine_tuned.weights_of(inputs, {}) == trained / BEST


def test_each_weights_are_loaded_once_and_results_are_in_the_order_asked_for(
    fine_tuned_world: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def counted(kind: str, name: str, **options: Any) -> Any:
        if kind == "models":
            loaded.append(options.get("path"))
        return component(kind, name, **options)

    monkeypatch.setattr("icltool.config.model.component", counted)
    methods = ("finetuned", "zero-shot", "random")
    report = evaluate.run(config(fine_tuned_world, methods=methods, shots=(1,), test_size=4), QUIET)
    assert [row["method"] for row in report.rows()] == list(methods)
    assert loaded == [None, str(trained / BEST)], "the model's own weights come first"
    assert {(d["a"], d["b"]) for d in report.analysis["differences"]} >= {("finetuned", "zero-shot")}
    assert report.results[0].extra["finetuned"]["file"] == str(trained / BEST)
    assert report.results[0].extra["finetuned"]["about"]["options"]["lr"] == SMALL["lr"]
    again = evaluate.run(config(fine_tuned_world, methods=methods, shots=(1,), test_size=4), QUIET)
    assert len(loaded) == 2
    assert again.results == report.results
    assert any(line.startswith("up to date: 3 of 3") for line in again.lines())


def test_answers_are_those_of_the_model_loaded_with_the_weights(fine_tuned_world: Path, trained: Path) -> None:
    """As a method, as a folder of `--model`, as that folder's name and as `--model-path`."""
    report = evaluate.run(config(fine_tuned_world, methods=("zero-shot", "finetuned")), QUIET)
    rows = answers(report.path, "finetuned")
    assert [row["raw"] for row in rows] != [row["raw"] for row in answers(report.path, "zero-shot")]
    for row in rows:
        row.pop("gain", None)
    ways: list[dict[str, Any]] = [
        {"model": str(trained)},
        {"model": trained.name},
        {"model_path": str(trained / BEST)},
    ]
    for options in ways:
        other = evaluate.run(config(fine_tuned_world, methods=("zero-shot",), **options), QUIET)
        assert other.path != report.path
        assert answers(other.path, "zero-shot") == rows, options
        assert other.results[0].metrics == report.results[1].metrics


def test_costs_of_weights_are_measured_beside_the_others(
    fine_tuned_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "SAMPLE", 2)
    call = config(fine_tuned_world, methods=("finetuned", "zero-shot", "random"), shots=(1,), cost=True, test_size=4)
    report = evaluate.run(call, QUIET)
    cost_of = {result.method: result.extra["cost"] for result in report.results}
    tokens = {method: cost["prompt_tokens"] for method, cost in cost_of.items()}
    assert tokens["finetuned"] == tokens["zero-shot"] < tokens["random"]
    assert cost_of["finetuned"]["flops"] < cost_of["random"]["flops"]
    assert all(cost["queries"] == 2 and cost["seconds"] > 0 for cost in cost_of.values())
    assert len({cost["call"] for cost in cost_of.values()}) == 1


def test_an_interrupted_evaluation_goes_on(
    fine_tuned_world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(answering, "CHUNK", 4)
    monkeypatch.setattr(answering, "BATCHES", 1)
    whole = Path(shutil.copytree(fine_tuned_world, tmp_path / "whole"))
    options: dict[str, Any] = {"methods": ("finetuned", "zero-shot"), "batch_size": 4, "test_size": 12}
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(config(fine_tuned_world, **options), InterruptedProgress(20))  # zero-shot comes first
    spy: Any = Spy()
    gone_on = evaluate.run(config(fine_tuned_world, **options), spy).path
    assert spy.done == {"finetuned": 8}
    at_once = evaluate.run(config(whole, **options), QUIET).path
    assert gone_on is not None
    assert at_once is not None
    result, expected = content(gone_on), content(at_once)
    assert result["predictions"] == expected["predictions"]
    for one, other in zip(result["results"]["results"], expected["results"]["results"], strict=True):
        assert {**one, "extra": 0} == {**other, "extra": 0}


def test_weights_that_were_trained_again_are_another_setting(fine_tuned_world: Path, trained: Path) -> None:
    first = evaluate.run(config(fine_tuned_world, test_size=4), QUIET)
    fine_tune(fine_tuned_world, {"lr": 1e-3})
    second = evaluate.run(config(fine_tuned_world, test_size=4), QUIET)
    assert first.path == second.path
    assert first.results[0].extra["digest"] != second.results[0].extra["digest"]
    assert second.results[0].extra["finetuned"]["file"] != str(trained / BEST)


def test_sequences_are_generated_by_a_fine_tuned_model(fine_tuned_world: Path, trained: Path) -> None:
    values: dict[str, Any] = {
        "device": "cpu",
        "task": "caption",
        "anchors": 2,
        "candidates": 3,
        "beam_size": 2,
        "shots": 1,
    }
    report = generate.run(GenerateConfig(workspace=fine_tuned_world, model=str(trained), **values), QUIET)
    assert report.path is not None
    assert "tiny-blip2" in report.path.name
    arrays = SequenceFile.open(report.path).arrays()
    records = open_dataset(fine_tuned_world / "datasets" / "shapes" / "caption").split("train")
    scored: list[list[float]] = []
    for options in ({"path": str(trained)}, {}):
        model = component("models", "tiny-blip2", device="cpu", **options)
        queries = [records[records.row_of(int(i))] for i in arrays["query_id"]]
        prompts = [model.prompt("caption", [], query) for query in queries]
        scored.append([np.exp(score.mean) for score in model.score(prompts, 1)])
    np.testing.assert_allclose(arrays["base_value"], scored[0], atol=1e-5)
    assert np.abs(np.array(scored[1]) - scored[0]).max() > 1e-4
