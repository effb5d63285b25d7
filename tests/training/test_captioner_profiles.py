"""The published captioners in miniature: official files, weights from a folder, and prepare, train and evaluate by profile.

Replaced are sizes (the few examples of the official layouts, one epoch, images of 42 or 32 pixels), devices (one process on
the CPU) and, where a GPU is needed for it, precision (float32 in training in place of 16-mixed). SPICE needs Java, and is left
out. Models are those that the profiles name, with small weights of the same architecture in their folders. The OFA plugin is
found whether it is installed or not, and the list of styles is named as the profiles' commands do. All else is the profile's.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import icltool
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.models.shared.fine_tuned import read_fine_tuned, tensor_names
from icltool.config.profiles import Profile, read_profile
from icltool.config.resolve import resolve
from icltool.contracts import StageReport
from icltool.contracts.options import options_from
from icltool.execution.progress import for_terminal
from icltool.plugin.commands import command_module, stage_model
from icltool.store.evaluations import predictions_file, read_predictions
from tests.components.datasets.builders import write_karpathy
from tests.components.datasets.caption_builders import STYLES, write_personality_captions, write_sherlock
from tests.components.models.tiny_captioners import blip2_opt
from tests.plugin.distributions import ofa_registered
from tests.suites import apart

CHECKOUT = Path(icltool.__file__).parents[1]
BLIP2 = ("captioner-coco-blip2-opt-2.7b", "captioner-sherlock-blip2-opt-2.7b")
OFA = tuple(f"captioner-personality-ofa-{size}" for size in ("tiny", "base", "distilled"))
SCST = "captioner-personality-ofa-base-scst"
#: Of data set -> (examples that are learned from, captions, queries); of Sherlock's three one image's two are held out.
SIZES = {"coco-karpathy": (3, 6, 2), "sherlock": (1, 1, 4), "personality-captions": (3, 3, 2)}
#: Sides in pixels: BLIP-2's position embeddings are resized from 28, as from 224 to 364.
SIDES = {"blip2-opt-2.7b": {"image_size": 42}, "ofa": {"image_size": 32, "shorter": 36}}
BEST = "best.safetensors"


@pytest.fixture(scope="module")
def ofa_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The plugin and the modules of its tests can be imported, its models are registered."""
    with ofa_registered(tmp_path_factory.mktemp("installed")) as plugin, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin / "tests"))
        yield plugin


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the official files of each data set, and of the weights of BLIP-2."""
    base = tmp_path_factory.mktemp("captioners")
    return {
        "coco-karpathy": write_karpathy(base / "coco"),
        "sherlock": write_sherlock(base / "sherlock"),
        "personality-captions": write_personality_captions(base / "personality"),
        "blip2-opt-2.7b": Path(blip2_opt(base / "blip2")),
    }


@pytest.fixture(scope="module")
def ofa_weights(ofa_plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the public ones."""
    folder = tmp_path_factory.mktemp("weights") / "ofa"
    path: Path = importlib.import_module("tiny_model").write_folder(folder, image_bucket_size=42)
    return path


class Run:
    """The stages of one profile, in one workspace."""

    def __init__(self, name: str, files: Mapping[str, Path], workspace: Path, weights: Path) -> None:
        self.profile: Profile = read_profile(CHECKOUT / "profiles" / f"{name}.toml")
        self.files, self.workspace, self.weights = files, workspace, weights
        self.common = self.profile.tables["common"]
        listed = files["personality-captions"] / "personality_captions" / "personalities.txt"
        self.styles = {"styles": str(listed)} if self.common["task"] == "style" else {}
        self.sides = SIDES["ofa" if self.common["model"].startswith("ofa-") else self.common["model"]]

    def stage(self, stage: str, **options: Any) -> StageReport:
        model = stage_model(stage)
        shared: dict[str, Any] = {"workspace": self.workspace, "device": "cpu", "model_path": str(self.weights)}
        shared = {key: value for key, value in shared.items() if key in model.model_fields}
        config = resolve(stage, model, {**shared, **self._replaced(stage), **options}, profile=str(self.profile.path))
        report: StageReport = command_module(stage, "run").run(config, for_terminal(quiet=True))
        return report

    def _replaced(self, stage: str) -> dict[str, Any]:
        if stage == "prepare":
            return {"root": self.files[self.common["dataset"]]}
        if stage == "train":
            options: dict[str, Any] = {"epochs": 1, **self.sides}
            precision: dict[str, Any] = {}
            if self.profile.tables["train"]["dtype"] == "float16":
                options["precision"], precision["dtype"] = "32-true", "float32"
            trainer = {"devices": 1, "strategy": "auto", "accelerator": "cpu"}
            return {"options": options, "trainer": trainer, "adapter_options": self.styles, **precision}
        metrics = [name for name in self.profile.tables["evaluate"]["metrics"] if name != "spice"]
        return {"metrics": metrics, "adapter_options": {**self.sides, **self.styles}}

    def check_training(self, folder: Path | None) -> Path:
        """The weights are of the profile's training: what was not replaced is as the profile says."""
        assert folder is not None
        fine_tuned = read_fine_tuned(folder / BEST)
        examples, captions, _ = SIZES[self.common["dataset"]]
        assert (fine_tuned.model, fine_tuned.about["task"]) == (self.common["model"], self.common["task"])
        assert (fine_tuned.about["examples"], fine_tuned.about["captions"]) == (examples, captions)
        published = self.profile.tables["train"]["options"]
        expected = options_from("captioner", CaptionerOptions, published).decided()
        expected_values = {
            k: expected[k] for k in published if k in expected and k not in ("epochs", "precision", *self.sides)
        }
        assert expected_values
        assert {k: fine_tuned.about["options"][k] for k in expected_values} == expected_values
        return folder

    def check_evaluation(self, report: StageReport) -> dict[str, list[dict[str, Any]]]:
        """Rows of predictions by method."""
        _, _, queries = SIZES[self.common["dataset"]]
        evaluate = self.profile.tables["evaluate"]
        assert [(row["method"], row["queries"]) for row in report.rows()] == [(m, queries) for m in evaluate["methods"]]
        assert report.path is not None
        predictions = {m: read_predictions(predictions_file(report.path, m, 0, 0)) for m in evaluate["methods"]}
        assert predictions["finetuned"][0]["scores"].keys() == {m for m in evaluate["metrics"] if m != "spice"}
        assert [r["prompt"] for r in predictions["finetuned"]] == [r["prompt"] for r in predictions["zero-shot"]]
        return predictions


@pytest.mark.parametrize("name", BLIP2)
@pytest.mark.training
def test_blip2(name: str, files: Mapping[str, Path], tmp_path: Path) -> None:
    run = Run(name, files, tmp_path / "ws", files["blip2-opt-2.7b"])
    run.stage("prepare")
    folder = run.check_training(run.stage("train").path)
    trained = {".".join(part.split(".")[:2]) for part in tensor_names(folder / BEST)}
    assert trained >= {"query_tokens", "qformer.encoder", "language_projection.weight", "vision_model.post_layernorm"}
    assert ("vision_model.encoder" in trained) == ("coco" in name), (
        "the ViT is frozen on Sherlock, but for its last norm"
    )
    assert not any(part.startswith("language_model") for part in trained)
    rows = run.check_evaluation(run.stage("evaluate"))
    prompts = [row["prompt"] for row in rows["finetuned"]]
    if "coco" in name:
        assert all(prompt.endswith("a photo of") for prompt in prompts)
    else:
        assert sum(prompt.endswith("clue: an umbrella inference:") for prompt in prompts) == 1


@pytest.fixture(scope="module")
def styled(files: Mapping[str, Path], ofa_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The first training of OFA base, from which the second goes on."""
    run = Run(OFA[1], files, tmp_path_factory.mktemp("styled") / "ws", ofa_weights)
    run.stage("prepare")
    folder = run.stage("train").path
    assert folder is not None
    return run, folder


@pytest.mark.parametrize("name", apart("training", OFA[1:], OFA))
def test_ofa(name: str, styled: tuple[Run, Path], files: Mapping[str, Path], tmp_path: Path) -> None:
    first, folder = styled
    run, table = Run(name, files, first.workspace, first.weights), tmp_path / "results.csv"
    run.check_training(folder if name == first.profile.path.stem else run.stage("train").path)
    rows = run.check_evaluation(run.stage("evaluate", csv=table))
    codes = [f"<code_{STYLES.index(style)}>" for style in ("Sweet", "Anxious")]
    for row, code in zip(rows["finetuned"], codes, strict=True):
        assert f"what does the image describe? reply in personality {code}." in row["prompt"]
    with table.open(newline="") as opened:
        zero, fine_tuned = csv.DictReader(opened)
    assert (zero["model.tokenize_style"], fine_tuned["model.tokenize_style"]) == ("true", "true")
    assert (fine_tuned["method"], fine_tuned["training.label_smoothing"], fine_tuned["training.batch_size"]) == (
        "finetuned",
        "0.1",
        "4",
    )
    assert float(fine_tuned["bleu-1"]) >= 0


@pytest.mark.training
def test_ofa_by_scst(styled: tuple[Run, Path], files: Mapping[str, Path], tmp_path: Path) -> None:
    first, start = styled
    run = Run(SCST, files, first.workspace, first.weights)
    folder = run.check_training(run.stage("train", model_path=str(start)).path)
    fine_tuned, before = read_fine_tuned(folder / BEST), read_fine_tuned(start / BEST)
    assert fine_tuned.base_hash == before.base_hash
    assert tensor_names(folder / BEST) >= tensor_names(start / BEST), "embeddings are frozen, and were trained before"
    rows = run.check_evaluation(run.stage("evaluate", method_options={"finetuned.folder": str(folder)}))
    again = run.stage("evaluate", model_path=str(folder), methods=["zero-shot"])
    assert again.path is not None
    alone = read_predictions(predictions_file(again.path, "zero-shot", 0, 0))
    assert [row["raw"] for row in alone] == [row["raw"] for row in rows["finetuned"]]
