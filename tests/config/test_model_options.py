"""What of a model's options reaches its class, and what the command line takes for a batch size."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.generate.options import GenerateConfig
from icltool.config.model import ModelConfig


def test_only_what_was_asked_for_reaches_the_model() -> None:
    """A plugin's adapter need not know every option."""
    assert ModelConfig().model_options() == {}
    options = ModelConfig(
        model="idefics-9b", model_path="x/y", device_map="balanced", quantization="4bit", attention="eager",
        prompt_style="flat",
        prompt_template="live",
    )  # fmt: skip
    assert options.model_options() == {
        "path": "x/y", "device_map": "balanced", "quantization": "4bit",
        "attention": "eager", "style": "flat", "template": "live",
    }  # fmt: skip
    assert ModelConfig(device="cpu", dtype="float32").model_options() == {"device": "cpu", "dtype": "float32"}


@pytest.mark.parametrize(("value", "size"), [(8, 8), ("8", 8), ("auto", "auto")])
def test_batch_sizes(value: object, size: object) -> None:
    assert ModelConfig(batch_size=value).batch_size == size  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, "many", 2.5, True, "0", None])
def test_wrong_batch_sizes_are_told_in_one_line(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelConfig(batch_size=value)  # type: ignore[arg-type]
    errors = caught.value.errors()
    assert len(errors) == 1
    assert "must be a positive integer or auto" in errors[0]["msg"]


@pytest.mark.parametrize(("value", "workers"), [(0, 0), ("3", 3), ("auto", "auto")])
def test_image_workers(value: object, workers: object) -> None:
    assert ModelConfig(image_workers=value).image_workers == workers  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, "some", True, None])
def test_wrong_numbers_of_image_workers_are_told_in_one_line(value: object) -> None:
    with pytest.raises(ValidationError, match="must be a non-negative integer or auto") as caught:
        ModelConfig(image_workers=value)  # type: ignore[arg-type]
    assert len(caught.value.errors()) == 1


def test_a_device_and_a_device_map_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        ModelConfig(device="cpu", device_map="auto")


def test_quantization_and_style_decide_the_result_and_devices_do_not() -> None:
    plain = GenerateConfig().identity()
    same = GenerateConfig(
        device_map="auto", attention="eager", batch_size="auto", image_workers=2, image_cache_disk=True
    ).identity()
    assert plain == same
    for change in (
        {"quantization": "8bit"},
        {"prompt_style": "flat"},
        {"prompt_template": "live"},
        {"dtype": "bfloat16"},
    ):
        assert GenerateConfig(**change).identity() != plain  # type: ignore[arg-type]


def test_a_template_renames_no_artefact_of_before_there_was_a_choice() -> None:
    """Its name is a digest of the identity, in which the field stands only where it was asked for."""
    for kind in (GenerateConfig, EvaluateConfig):
        assert "prompt_template" not in kind().identity()
        assert kind(prompt_template="live").identity() == {**kind().identity(), "prompt_template": "live"}
