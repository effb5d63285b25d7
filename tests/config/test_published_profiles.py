"""The published set-ups in profiles/: every option reaches its stage, and every profile runs, in small, from end to end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.learners.live.options import LiveOptions
from icltool.config.profiles import Profile, read_profile
from icltool.config.resolve import resolve
from icltool.contracts.options import options_from
from icltool.execution.progress import for_terminal
from icltool.plugin.commands import command_module, stage_model
from tests.suites import apart

PROFILES = {path.stem: read_profile(path) for path in sorted((Path(__file__).parents[2] / "profiles").glob("*.toml"))}
#: Captioners trained on the embedded world, by tests/training/test_captioner_world.py.
SHAPES = ("captioner-shapes-blip2", "captioner-shapes-ofa")
#: Run by tests/world/test_smolvlm.py, with the data set, model and encoder that it names.
EASY_VQA = "easy-vqa"
PUBLISHED = [name for name in PROFILES if name not in ("demo", "live-shapes", EASY_VQA, *SHAPES)]
PIPELINE = ("prepare", "embed", "generate", "train", "evaluate")
METHODS = ("leverlm", "rices")
SETTINGS = ("coco2017", "vqav2")
MODELS = ("idefics-9b", "openflamingo-9b")
LIVE_SETTINGS = ("vqav2", "okvqa")
LIVE_MODELS = ("idefics-9b", "idefics2-8b-base")
#: Run by tests/training/test_live_profiles.py, with models of their own architectures.
LIVE_PROFILES = tuple(f"live-{s}-{v}" for s in LIVE_SETTINGS for v in LIVE_MODELS)
#: Run by tests/training/test_captioner_profiles.py: name -> data set, task and model.
CAPTIONERS = {
    "captioner-coco-blip2-opt-2.7b": ("coco-karpathy", "caption", "blip2-opt-2.7b"),
    "captioner-sherlock-blip2-opt-2.7b": ("sherlock", "inference", "blip2-opt-2.7b"),
    "captioner-personality-ofa-tiny": ("personality-captions", "style", "ofa-tiny"),
    "captioner-personality-ofa-base": ("personality-captions", "style", "ofa-base"),
    "captioner-personality-ofa-distilled": ("personality-captions", "style", "ofa-distilled"),
    "captioner-personality-ofa-base-scst": ("personality-captions", "style", "ofa-base"),
}
#: What a comment beside a figure calls its source.
SOURCES = ("paper", "code", "Flamingo")
#: What the published commands of LIVE say of each model.
LIVE_RUNS: dict[str, dict[str, Any]] = {
    "idefics-9b": {"shots": 32, "precision": "16-mixed", "dtype": "float16"},
    "idefics2-8b-base": {"shots": 1, "precision": "bf16-mixed", "dtype": "bfloat16"},
}


def test_each_method_has_a_profile_for_each_data_set_and_model() -> None:
    assert set(PUBLISHED) == {
        *(f"{m}-{s}-{v}" for m in METHODS for s in SETTINGS for v in MODELS),
        *LIVE_PROFILES,
        *CAPTIONERS,
    }


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in CAPTIONERS])
def test_its_name_says_what_it_does(name: str) -> None:
    method, dataset, model = name.split("-", 2)
    tables = PROFILES[name].tables
    common = tables["common"]
    assert (common["dataset"], common["model"], tables["prepare"]["name"]) == (dataset, model, dataset)
    assert common["task"] == {"coco2017": "caption", "vqav2": "vqa", "okvqa": "vqa"}[dataset]
    assert {"leverlm": "lever-lm", "rices": "i2i", "live": "live"}[method] in tables["evaluate"]["methods"]
    assert ("generate" in tables) == (method == "leverlm")
    assert ("train" in tables) == (method != "rices")
    text = PROFILES[name].path.read_text(encoding="utf-8")
    assert all(f"icltool {stage.ljust(8)} --profile {name}\n" in text for stage in _stages(PROFILES[name]))


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_captioner_s_name_says_what_it_does(name: str) -> None:
    tables = PROFILES[name].tables
    common = tables["common"]
    assert (common["dataset"], common["task"], common["model"]) == CAPTIONERS[name]
    assert tables["prepare"]["name"] == common["dataset"]
    assert (tables["train"]["learner"], tables["evaluate"]["methods"]) == ("captioner", ["zero-shot", "finetuned"])
    assert bool(tables["train"]["options"].get("scst")) == name.endswith("-scst")
    text = PROFILES[name].path.read_text(encoding="utf-8")
    assert all(f"icltool {stage.ljust(8)} --profile {name}" in text for stage in ("prepare", "train", "evaluate"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_figure_names_its_source(name: str) -> None:
    """Options of the search, the evaluation and the selector's recipe stand beside the paper or code they are from."""
    text = PROFILES[name].path.read_text(encoding="utf-8")
    trained = name.startswith(("live-", "captioner-"))
    for table in ("generate", "evaluate", *(("train.options", "train.trainer") if trained else ())):
        _, separator, rest = text.partition(f"[{table}]\n")
        options = [line for line in rest.partition("\n[")[0].splitlines() if "=" in line] if separator else []
        sources = (*SOURCES, "specification", "as for COCO") if name in CAPTIONERS else SOURCES
        sourced = [line for line in options if any(word in line.partition("#")[2] for word in sources)]
        assert len(sourced) >= len(options) - 2


@pytest.mark.parametrize("dataset", SETTINGS)
def test_rices_is_one_set_up_whatever_the_model(dataset: str) -> None:
    one, other = (PROFILES[f"rices-{dataset}-{model}"].tables for model in MODELS)
    assert {**one, "common": {**one["common"], "model": ""}} == {**other, "common": {**other["common"], "model": ""}}
    evaluate = one["evaluate"]
    assert (one["embed"]["encoder"], evaluate["encoder"]) == ("vit-l-14", "vit-l-14")
    assert (evaluate["methods"], evaluate["shots"], evaluate["reversed_order"]) == (["i2i"], [1, 2, 3, 4, 6, 8], True)


@pytest.mark.parametrize("model", LIVE_MODELS)
@pytest.mark.parametrize("dataset", LIVE_SETTINGS)
def test_live_is_trained_as_published(dataset: str, model: str) -> None:
    """Every value of the published commands and of the configuration that they leave as it is."""
    config, run = _resolved("train", f"live-{dataset}-{model}"), LIVE_RUNS[model]
    assert (config.learner, config.dataset, config.task, config.model) == ("live", dataset, "vqa", model)
    assert (config.prompt_template, config.dtype) == ("live", run["dtype"])
    expected = {
        "shots": run["shots"],
        "max_train_size": 8000,
        "alpha": 0.1,
        "alpha_sigmoid": False,
        "lr": {"vqav2": 1e-3, "okvqa": 5e-3}[dataset],
        "alpha_lr": 1e-2,
        "weight_decay": 1e-3,
        "warmup": 0.1,
        "clip": 1.0,
        "epochs": 10,
        "batch_size": 8,
        "accumulate": 2,
        "hard_loss_weight": 0.5,
        "temperature": 1.0,
        "precision": run["precision"],
        "grad_checkpointing": True,
    }
    assert config.options == expected
    assert config.trainer == {"devices": 4, "strategy": "ddp"}
    resolved = options_from("live", LiveOptions, {**config.options, "trainer": config.trainer})
    assert (resolved.temperature_schedule, resolved.init_std, resolved.teacher_draws) == ("fixed", 0.01, None)


@pytest.mark.parametrize("model", LIVE_MODELS)
@pytest.mark.parametrize("dataset", LIVE_SETTINGS)
def test_live_is_evaluated_as_published(dataset: str, model: str) -> None:
    name = f"live-{dataset}-{model}"
    config = _resolved("evaluate", name)
    assert (config.dataset, config.task, config.model, config.prompt_template) == (dataset, "vqa", model, "live")
    assert config.methods == ("zero-shot", "random", "i2i", "live")
    assert config.shots == (1, 4, 8, 16, 32)
    assert (config.max_new_tokens, config.num_beams, config.length_penalty) == (5, 3, 0.0)
    assert config.metrics == {"vqav2": ("vqa-accuracy",), "okvqa": ()}[dataset]  # okvqa: the data set's own
    assert (config.dtype, config.reversed_order) == ("bfloat16", False)
    assert config.encoder == _resolved("embed", name).encoder == "vit-b-32"
    prepare = _resolved("prepare", name)
    assert (prepare.name, prepare.task) == (dataset, "vqa")


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "captioner-coco-blip2-opt-2.7b",
            {"batch_size": 16, "freeze": ("language_model",), "captions": "all", "max_target_tokens": 28},
        ),
        (
            "captioner-sherlock-blip2-opt-2.7b",
            {"batch_size": 8, "freeze": ("vit", "language_model"), "captions": None, "max_target_tokens": 32},
        ),
    ],
)
def test_blip2_is_fine_tuned_as_published(name: str, own: dict[str, Any]) -> None:
    """Every value of the published configuration; it is the model's own recipe, too."""
    from icltool.components.models.blip.blip2 import Blip2Model

    config = _resolved("train", name)
    assert config.dtype == "float16"
    eight = {"devices": 8, "strategy": "ddp"}
    assert config.trainer == (eight if "coco" in name else {"devices": 1})
    options = options_from("captioner", CaptionerOptions, config.options)
    expected = {
        **{"epochs": 5, "lr": 1e-5, "schedule": "blip2", "warmup_lr": 1e-8, "warmup_steps": 1000, "min_lr": 0.0},
        **{"betas": (0.9, 0.999), "weight_decay": 0.05, "layer_decay": 1.0, "clip": 0.0, "accumulate": 1},
        **{"image_size": 364, "crop": "resized", "crop_scale": (0.5, 1.0), "flip": True, "label_smoothing": 0.0},
        **{"grad_checkpointing": True, "precision": "16-mixed", "select": "cider+bleu-4", **own},
    }
    assert {key: getattr(options, key) for key in expected} == expected
    model: Any = SimpleNamespace(image_size=224, target_apart=False)
    recipe = Blip2Model.fine_tuning_recipe(model, config.task)
    assert {key: getattr(options, key) for key in recipe} == recipe
    evaluate = _resolved("evaluate", name)
    search = {"num_beams": 5, "max_new_tokens": 30, "min_new_tokens": 8, "repetition_penalty": 1.15}
    assert evaluate.generation() == {**search, "length_penalty": 0.0}
    assert evaluate.metrics == (*(f"bleu-{n}" for n in range(1, 5)), "meteor", "rouge-l", "cider", "spice")


@pytest.mark.parametrize("name", [name for name in CAPTIONERS if "-ofa-" in name])
def test_styles_are_learned_as_published(name: str) -> None:
    """Defaults of the published code, and its five metrics."""
    config = _resolved("train", name)
    scst = name.endswith("-scst")
    options = options_from("captioner", CaptionerOptions, config.options)
    expected = {
        **{"epochs": 3, "batch_size": 4, "lr": 5e-5, "min_lr": 1e-7, "schedule": "polynomial", "warmup": 0.01},
        **{"weight_decay": 0.001, "image_size": 224, "shorter": 256, "crop": "random", "max_target_tokens": 16},
        **{"workers": 0, "scst": scst, "freeze": ("embeddings",) if scst else ()},
    }
    assert {key: getattr(options, key) for key in expected} == expected
    assert options.label_smoothing == (0.0 if scst else 0.1)
    assert config.adapter_options == {"tokenize_style": True}
    evaluate = _resolved("evaluate", name)
    assert evaluate.generation() == {"num_beams": 5, "max_new_tokens": 16, "no_repeat_ngram": 3, "length_penalty": 1.0}
    assert evaluate.metrics == ("bleu-1", "bleu-4", "rouge-l", "cider", "spice")
    assert evaluate.adapter_options == config.adapter_options


@pytest.mark.parametrize("task", ["caption", "vqa"])
def test_live_on_the_embedded_world_takes_either_task(task: str) -> None:
    config = resolve("train", stage_model("train"), {"task": task}, profile=str(PROFILES["live-shapes"].path))
    assert (config.dataset, config.task, config.model) == ("shapes", task, "tiny-idefics")
    options_from("live", LiveOptions, config.options)


def _resolved(stage: str, name: str) -> Any:
    return resolve(stage, stage_model(stage), profile=str(PROFILES[name].path))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace that all profiles run in: images and embeddings are made by the first that asks for them."""
    return tmp_path_factory.mktemp("published") / "ws"


@pytest.mark.parametrize(
    "name",
    apart(
        "training",
        ["demo", "live-shapes", "leverlm-vqav2-idefics-9b", "leverlm-coco2017-openflamingo-9b"],
        [name for name in PROFILES if name not in (EASY_VQA, *LIVE_PROFILES, *CAPTIONERS, *SHAPES)],
    ),
)
def test_it_runs_from_end_to_end(name: str, world: Path) -> None:
    """Only data set, model, encoder and sizes are replaced; all else is the profile's."""
    profile = PROFILES[name]
    for stage in _stages(profile):
        config = resolve(stage, stage_model(stage), _replaced(stage, profile, world), profile=str(profile.path))
        report = command_module(stage, "run").run(config, for_terminal(quiet=True))
        _check_kept(stage, profile, config)
        if stage == "train" and "pointer" in profile.tables["evaluate"]["methods"]:
            options = {**_replaced(stage, profile, world), "learner": "pointer"}
            options["options"] = {**options["options"], "variant": "query_img_icd_img_text"}
            pointer = resolve(stage, stage_model(stage), options, profile=str(profile.path))
            command_module(stage, "run").run(pointer, for_terminal(quiet=True))
    evaluate = profile.tables["evaluate"]
    rows = report.rows()
    assert {row["method"] for row in rows} == set(evaluate["methods"])
    assert {row["shots"] for row in rows} - {0} == set(evaluate["shots"])
    assert all(row["queries"] == 2 for row in rows)


def _stages(profile: Profile) -> list[str]:
    """The stages that the profile is for: those it has a table for, and the others of a pipeline without a selector."""
    return [s for s in PIPELINE if s in profile.tables or (s == "embed" and "encoder" in profile.tables["common"])]


def _replaced(stage: str, profile: Profile, world: Path) -> dict[str, Any]:
    """Data set, model, encoder and sizes of a run that takes seconds."""
    task = profile.tables["common"]["task"]
    trains_vectors = profile.tables.get("train", {}).get("learner") == "live"
    shared: dict[str, Any] = {"workspace": world, "dataset": "shapes", "task": task, "model": "tiny-idefics"}
    shared |= {"encoder": "tiny-clip", "device": "cpu"}
    own: dict[str, dict[str, Any]] = {
        "prepare": {"name": "shapes", "options": {"index_images": 52, "validation_images": 24}},
        "generate": {"anchors": 8, "candidates": 6, "beam_size": 2, "overwrite": True},
        "train": {
            "options": {"epochs": 1, **({"max_train_size": 16} if trains_vectors else {"n_embd": 64, "n_head": 4})},
            "trainer": {"accelerator": "cpu"},
            "overwrite": True,
        },
        "evaluate": {"test_size": 2, "overwrite": True},
    }
    known = stage_model(stage).model_fields
    return {key: value for key, value in {**shared, **own.get(stage, {})}.items() if key in known}


def _check_kept(stage: str, profile: Profile, config: Any) -> None:
    """What was not replaced is what the profile says, and what the stage was given."""
    replaced = _replaced(stage, profile, Path())
    for key, value in profile.values(stage, stage_model(stage)).items():
        setting = getattr(config, key)
        if isinstance(value, dict):
            assert {k: v for k, v in setting.items() if k not in replaced.get(key, {})}.items() <= value.items()
        elif key not in replaced:
            assert (list(setting) if isinstance(setting, tuple) else setting) == value
