"""The published set-ups of LIVE in miniature: official files, weights from a folder, all four stages.

Replaced are sizes (36 and 2 questions, one of the 10 epochs), devices (one process on the CPU) and, where a GPU is needed for
it, precision (float32 in training in place of 16-mixed). Models are those that the profiles name, with small weights of the
same architecture in their folders. Embeddings are those of the embedded world's small CLIP, and costs are measured once, of
one query in one run. All else is the profile's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import icltool
from icltool.components.interventions.files import WEIGHTS, read_intervention
from icltool.config.profiles import Profile, read_profile
from icltool.config.resolve import resolve
from icltool.contracts import StageReport
from icltool.execution.progress import for_terminal
from icltool.plugin.commands import command_module, stage_model
from icltool.store.evaluations import predictions_file, read_predictions
from tests.components.datasets.builders import vqa_image, write_okvqa, write_vqa
from tests.components.models.tiny import idefics2, idefics_resampled
from tests.suites import apart

PROFILES = Path(icltool.__file__).parents[1] / "profiles"
#: The one whose costs are measured.
MEASURED = "live-vqav2-idefics2-8b-base"
NAMES = [f"live-{data}-{model}" for data in ("vqav2", "okvqa") for model in ("idefics-9b", "idefics2-8b-base")]
#: 32 demonstrations and some to spare.
INDEX, QUERIES = 36, 2
COLOURS = ("red", "green", "blue", "yellow")
WRITERS: Mapping[str, Callable[..., Path]] = {"vqav2": write_vqa, "okvqa": write_okvqa}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the official files of each data set, and of each model's weights."""
    base = tmp_path_factory.mktemp("live")
    questions_of = {
        "train": {n: (n, "what colour is it?", [COLOURS[n % 4]] * 10) for n in range(1, INDEX + 1)},
        "val": {900 + n: (900 + n, "what colour is it?", [COLOURS[n]] * 10) for n in range(QUERIES)},
    }
    for name, write in WRITERS.items():
        root = write(base / name, questions_of)
        for split, questions in questions_of.items():
            for image_id, _, answers in questions.values():
                Image.new("RGB", (48, 48), answers[0]).save(vqa_image(root, split, image_id))
    paths = {name: base / name for name in WRITERS}
    paths["idefics-9b"] = Path(idefics_resampled(base / "idefics"))
    paths["idefics2-8b-base"] = Path(idefics2(base / "idefics2"))
    return paths


@pytest.mark.parametrize("name", apart("training", [name for name in NAMES if name != "live-vqav2-idefics-9b"], NAMES))
def test_it_runs_from_end_to_end(name: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    profile = read_profile(PROFILES / f"{name}.toml")
    reports = {stage: _run(stage, profile, folders, tmp_path) for stage in ("prepare", "embed", "train", "evaluate")}
    options = profile.tables["train"]["options"]

    trained = reports["train"].path
    assert trained is not None
    stored = read_intervention(trained / WEIGHTS)
    assert stored.method == "live"
    assert stored.base.name == profile.tables["common"]["model"]
    assert stored.tensors["vectors"].shape == (stored.base.sites, stored.base.width)
    assert stored.about["shots"] == options["shots"]
    assert stored.about["figures"]["examples"] == INDEX
    unchanged = {key: value for key, value in options.items() if key not in ("epochs", "precision")}
    assert unchanged.items() <= {k: v for k, v in stored.about["options"].items() if k != "trainer"}.items()

    evaluate = profile.tables["evaluate"]
    rows = reports["evaluate"].rows()
    settings = {(row["method"], row["shots"]) for row in rows}
    assert settings == {("zero-shot", 0), ("live", 0)} | {(m, k) for m in ("random", "i2i") for k in evaluate["shots"]}
    assert all(row["queries"] == QUERIES for row in rows)
    evaluated = reports["evaluate"].path
    assert evaluated is not None
    assert (evaluated / "cost.png").exists() == (name == MEASURED)
    for method, count in (("live", 0), ("random", 32)):
        for row in read_predictions(predictions_file(evaluated, method, count, 0)):
            start, *demonstrations, query = row["prompt"].split("Question:")
            assert start.startswith("<s>Provide an answer to the question. Use the image to answer.\n")
            assert len(demonstrations) == count
            assert all(".\n\n" in text for text in demonstrations)
            assert query == "what colour is it? Short answer:"


def _run(stage: str, profile: Profile, folders: Mapping[str, Path], base: Path) -> StageReport:
    config = resolve(stage, stage_model(stage), _replaced(stage, profile, folders, base), profile=str(profile.path))
    report: StageReport = command_module(stage, "run").run(config, for_terminal(quiet=True))
    return report


def _replaced(stage: str, profile: Profile, folders: Mapping[str, Path], base: Path) -> dict[str, Any]:
    common = profile.tables["common"]
    options: dict[str, Any] = {"epochs": 1}
    trainer = {"devices": 1, "strategy": "auto", "accelerator": "cpu"}
    train: dict[str, Any] = {"options": options, "trainer": trainer}
    if profile.tables["train"]["dtype"] == "float16":
        train["dtype"], options["precision"] = "float32", "32-true"
    own: dict[str, dict[str, Any]] = {
        "prepare": {"root": folders[common["dataset"]]},
        "embed": {"encoder": "tiny-clip"},
        "train": train,
        "evaluate": {"encoder": "tiny-clip", "batch_size": 8, "cost": None if profile.path.stem == MEASURED else False},
    }
    shared = {"workspace": base / "ws", "device": "cpu", "model_path": str(folders[common["model"]])}
    return {**{k: v for k, v in shared.items() if k in stage_model(stage).model_fields}, **own[stage]}
