"""Options: where their values come from, and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icltool.components.learners.captioner.learner import Captioner
from icltool.components.learners.captioner.options import CaptionerOptions, with_recipe
from icltool.components.tasks import task_named
from icltool.contracts import Example, FineTuningLearner
from icltool.contracts.options import options_from
from icltool.errors import ConfigError
from icltool.plugin.manager import component
from tests.components.learners.captioner.model import TinyCaptioner
from tests.components.learners.captioner.sets import SMALL, fine_tuned, fine_tuning_set


def test_it_is_registered_and_tunes() -> None:
    learner = component("learners", "captioner", lr="2e-5")
    assert isinstance(learner, FineTuningLearner)
    assert json.loads(json.dumps(learner.identity())) == learner.identity()


def test_the_recipe_stands_between_defaults_and_the_user() -> None:
    recipe = {"lr": 5e-5, "epochs": 3, "freeze": ("vision",), "betas": (0.9, 0.98), "clip": None}
    resolved = with_recipe(options_from("captioner", CaptionerOptions, {"epochs": "7", "freeze": "none"}), recipe)
    assert (resolved.lr, resolved.epochs, resolved.freeze, resolved.betas) == (5e-5, 7, (), (0.9, 0.98))
    assert resolved.weight_decay == options_from("captioner", CaptionerOptions, {}).weight_decay
    assert resolved.clip == 0.0


def test_identity_tells_a_default_from_a_value_that_was_given() -> None:
    explicit, default = (
        options_from("captioner", CaptionerOptions, {"lr": options_from("captioner", CaptionerOptions, {}).lr}),
        options_from("captioner", CaptionerOptions, {}),
    )
    assert explicit.identity() != default.identity()
    options = options_from(
        "captioner", CaptionerOptions, {"workers": 4, "reward_workers": 3, "save_every": 10, "loggers": "tensorboard"}
    )
    assert options.identity() == default.identity()


def test_texts_are_read_as_people_write_them() -> None:
    options = options_from(
        "captioner",
        CaptionerOptions,
        {"freeze": "vision, embeddings", "crop_scale": "0.3,1", "betas": "0.8,0.9", "clip": "none"},
    )
    assert options.freeze == ("vision", "embeddings")
    assert options.crop_scale == (0.3, 1.0)
    assert options.betas == (0.8, 0.9)
    caption, style, vqa = map(task_named, ("caption", "style", "vqa"))
    assert [options.learned(task) for task in (caption, task_named("inference"), vqa)] == ["all", "first", "first"]
    assert options_from("captioner", CaptionerOptions, {"captions": "all", "scst": True}).learned(caption) == "first"
    assert options.chosen_by(caption) == options.chosen_by(style) == ("cider", "bleu-4")
    assert options.chosen_by(vqa) == ("loss",)
    assert options_from("captioner", CaptionerOptions, {"select": "cider-d + overlap"}).chosen_by(vqa) == (
        "cider",
        "overlap",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "no option 'epoch'"),
        ({"lr": 0}, "lr must be a positive number, got 0"),
        ({"crop_scale": "1,0.5"}, "captioner: crop_scale"),
        ({"betas": "0.9,1"}, "captioner: betas"),
        ({"itm_prompt": "is it?"}, "must contain {caption}"),
        ({"itm_prompt": "{caption} {mood}"}, "only placeholders are {caption} and {style}"),
        ({"select": "loss+cider"}, "captioner: select"),
        ({"select": "cider+"}, "captioner: select"),
        ({"min_lr": 1}, "must not be above lr"),
        ({"trainer": {"max_epochs": 1}}, "set max_epochs with the learner's option instead: --option epochs="),
        ({"schedule": "step"}, "schedule must be"),
    ],
)
def test_wrong_values_are_one_clear_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options_from("captioner", CaptionerOptions, values)


def test_what_the_model_cannot_do_is_told(examples: list[Example], tmp_path: Path, tiny_model: Any) -> None:
    data = fine_tuning_set(examples)
    with pytest.raises(ConfigError, match="no part 'head'") as caught:
        fine_tuned(data, tmp_path, freeze="head")
    assert "embeddings, language, vision" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="nothing of the model is left"):
        _all_frozen(tmp_path, examples)
    with pytest.raises(ConfigError, match="tiny-idefics cannot be fine-tuned"):
        fine_tuned(fine_tuning_set(examples, model=tiny_model), tmp_path)
    with pytest.raises(ConfigError, match="num_beams is 1"):
        fine_tuned(fine_tuning_set(examples, beams=1), tmp_path, scst=True)
    assert not list(tmp_path.iterdir())


def _all_frozen(folder: Path, examples: list[Example]) -> None:
    class Whole(TinyCaptioner):
        def fine_tuning_parts(self) -> dict[str, tuple[str, ...]]:
            return {"all": ("",)}

    Captioner(CaptionerOptions(**SMALL, freeze="all")).tune(fine_tuning_set(examples, Whole()), folder, 0, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("blip2", 1000, 0.0, 1e-8)),
        ({"schedule": "blip2"}, ("blip2", 1000, 0.0, 1e-8)),
        ({"schedule": "cosine", "warmup": 0.1}, ("cosine", None, 0.1, 0.0)),
        ({"schedule": "constant"}, ("constant", None, 0.0, 0.0)),
        ({"warmup_steps": 7}, ("blip2", 7, 0.0, 1e-8)),
        ({"schedule": "polynomial", "warmup_steps": 7, "warmup_lr": 1e-9}, ("polynomial", 7, 0.0, 1e-9)),
    ],
)
def test_a_recipes_warm_up_belongs_to_its_schedule(options: dict[str, object], expected: tuple[object, ...]) -> None:
    recipe = {"schedule": "blip2", "warmup_steps": 1000, "warmup_lr": 1e-8, "lr": 1e-5}
    actual = with_recipe(options_from("captioner", CaptionerOptions, options), recipe)
    assert (actual.schedule, actual.warmup_steps, actual.warmup, actual.warmup_lr) == expected
