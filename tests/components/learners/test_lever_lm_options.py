from __future__ import annotations

import json
import math

import pytest

from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.options import VARIANTS, LeverLMOptions
from icltool.contracts.options import options_from
from icltool.errors import ConfigError
from icltool.plugin.manager import component


def test_defaults_are_the_published_recipe() -> None:
    options = options_from("lever-lm", LeverLMOptions, {})
    assert (options.variant, options.network) == ("query_img_icd_img_text", "gpt2")
    assert (options.n_embd, options.n_head, options.n_layer) == (512, 8, 2)
    assert (options.lr, options.weight_decay, options.warmup) == (1e-4, 1e-3, 0.05)
    assert (options.batch_size, options.epochs, options.val_fraction, options.threshold) == (64, 20, 0.1, 0.0)
    assert options.adapter
    assert not options.norm


def test_width_depends_on_the_network_unless_given() -> None:
    assert options_from("lever-lm", LeverLMOptions, {"network": "lstm"}).n_embd == 128
    assert options_from("lever-lm", LeverLMOptions, {"network": "lstm", "n_embd": None}).n_embd == 128
    assert options_from("lever-lm", LeverLMOptions, {"network": "lstm", "n_embd": 64}).n_embd == 64


@pytest.mark.parametrize(
    ("variant", "needs"),
    [
        ("query_img_icd_idx", {"image"}),
        ("query_img_icd_img", {"image"}),
        ("query_img_icd_text", {"image", "text"}),
        ("query_img_icd_img_text", {"image", "text"}),
        ("query_img_text_icd_img_text", {"image", "text"}),
        ("query_text_icd_text", {"text"}),
    ],
)
def test_needs_follow_the_variant(variant: str, needs: set[str]) -> None:
    assert LeverLM(LeverLMOptions(variant=variant)).needs == needs


def test_every_variant_of_the_table_is_an_option() -> None:
    assert len(VARIANTS) == 6
    for variant in VARIANTS:
        assert options_from("lever-lm", LeverLMOptions, {"variant": variant}).reads is VARIANTS[variant]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epoch": 3}, "no option 'epoch'"),
        ({"epochs": 0}, "epochs"),
        ({"variant": "query_icd"}, "variant"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"n_embd": 100}, "multiple of n_head"),
        ({"trainer": "5"}, "trainer must be a table of names and values, got '5'"),
        ({"trainer": {"callbacks": []}}, "callbacks cannot be set"),
        ({"loggers": "paper"}, "loggers"),
        ({"freeze": "audio"}, "freeze"),
        ({"freeze": None}, "freeze"),
        ({"encoder_lr": 0}, "encoder_lr"),
        ({"network": ["gpt2"]}, "network"),
    ],
)
def test_wrong_options_are_named_in_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        component("learners", "lever-lm", **options)
    assert said in caught.value.message
    assert "\n" not in str(caught.value)


def test_a_mistyped_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        options_from("lever-lm", LeverLMOptions, {"epoch": 3})
    assert "did you mean 'epochs'?" in str(caught.value.hint)


def test_values_may_be_text_as_a_shell_gives_them() -> None:
    trainer = {"devices": "2", "gradient_clip_val": "0.5", "benchmark": "false", "strategy": "ddp", "max_time": "none"}
    options = options_from(
        "lever-lm",
        LeverLMOptions,
        {"epochs": "30", "adapter": "false", "threshold": "-inf", "loggers": "tensorboard, wandb", "trainer": trainer},
    )
    assert (options.epochs, options.adapter, options.threshold) == (30, False, -math.inf)
    assert options.loggers == ("tensorboard", "wandb")
    assert options.trainer == {
        "devices": 2,
        "gradient_clip_val": 0.5,
        "benchmark": False,
        "strategy": "ddp",
        "max_time": None,
    }


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        ("image,text", ("image", "text")),
        ("text, image", ("image", "text")),
        (["text"], ("text",)),
        ("none", ()),
        ("", ()),
    ],
)
def test_frozen_towers_are_named_in_any_order(value: object, frozen: tuple[str, ...]) -> None:
    options = options_from("lever-lm", LeverLMOptions, {"freeze": value})
    assert options.freeze == frozen
    assert options.trained == {"image", "text"} - set(frozen)
    assert options_from("lever-lm", LeverLMOptions, {}).freeze == ("image", "text")


def test_threads_are_no_part_of_the_identity() -> None:
    assert (
        options_from("lever-lm", LeverLMOptions, {"workers": 3}).identity()
        == options_from("lever-lm", LeverLMOptions, {}).identity()
    )


def test_identity_is_strict_json_and_gives_the_options_back() -> None:
    options = options_from("lever-lm", LeverLMOptions, {"threshold": "-inf", "network": "lstm"})
    text = json.dumps(options.identity(), allow_nan=False)
    assert LeverLMOptions(**json.loads(text)) == options
