"""What beams are given of images that stand by image or by tile, not by prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationMixin

from icltool.components.models.shared.beam_images import images_by_beam
from icltool.errors import ConfigError

IMAGE, BEAMS = 9, 2


class Model(GenerationMixin):
    """A model whose `generate` encodes no images before it repeats its inputs."""

    config: Any = SimpleNamespace(image_token_id=IMAGE)

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> None: ...


class Encodes(Model):
    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor, mm_encoder_outputs: Any = None) -> None: ...  # type: ignore[override]


class Expands(Model):
    def _expand_inputs_for_generation(self, *_: Any, **options: Any) -> Any:
        return "its own way", options


def expanded(model: Any, inputs: dict[str, torch.Tensor], images: list[int]) -> Any:
    with images_by_beam(model, inputs, images):
        values = dict(inputs)
        return model._expand_inputs_for_generation(input_ids=values.pop("input_ids"), expand_size=BEAMS, **values)


def inputs(*tokens: int, rows: int) -> dict[str, torch.Tensor]:
    """Prompts with so many image tokens, and that many rows of pixels, numbered."""
    width = max(tokens) + 1
    ids = torch.tensor([[IMAGE] * count + [1] * (width - count) for count in tokens])
    pixels = torch.arange(rows).reshape(rows, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


@pytest.mark.parametrize(
    ("tokens", "images", "expected"),
    [
        ((4, 2), [2, 1], [0, 1, 0, 1, 2, 2]),  # by image
        ((2, 4), [1, 3], [0, 0, 1, 2, 3, 1, 2, 3]),  # by image, whatever their tokens
        ((4, 8), [1, 1], [0, 0, 1, 2, 1, 2]),  # by tile: 3 of 4 tokens each
    ],
)
def test_each_beam_has_the_images_of_its_prompt(
    tokens: tuple[int, ...], images: list[int], expected: list[int]
) -> None:
    arguments = inputs(*tokens, rows=len(set(expected)))
    ids, others = expanded(Model(), arguments, images)
    assert others["pixel_values"].flatten().tolist() == expected
    assert torch.equal(ids, arguments["input_ids"].repeat_interleave(BEAMS, 0))
    assert torch.equal(others["attention_mask"], arguments["attention_mask"].repeat_interleave(BEAMS, 0))


def test_the_model_is_left_as_it_was() -> None:
    model = Model()
    expanded(model, inputs(4, 2, rows=3), [2, 1])
    assert "_expand_inputs_for_generation" not in vars(model)
    with pytest.raises(ZeroDivisionError), images_by_beam(model, inputs(4, 2, rows=3), [2, 1]):
        raise ZeroDivisionError
    assert "_expand_inputs_for_generation" not in vars(model)


@pytest.mark.parametrize("kind", [Encodes, Expands])
def test_a_model_that_takes_care_of_it_is_left_alone(kind: type[Model]) -> None:
    model = kind()
    with images_by_beam(model, inputs(4, 2, rows=3), [2, 1]):
        assert "_expand_inputs_for_generation" not in vars(model)


def test_one_beam_needs_no_order() -> None:
    """Whatever the rows belong to."""
    arguments = inputs(4, 2, rows=5)
    with images_by_beam(Model(), arguments, [2, 1]):
        pass
    model = Model()
    with images_by_beam(model, arguments, [2, 1]):
        _, others = model._expand_inputs_for_generation(expand_size=1, **arguments)
    assert others["pixel_values"] is arguments["pixel_values"]


def test_rows_that_belong_to_no_prompt_are_refused() -> None:
    with pytest.raises(ConfigError, match="pixel_values has 5 rows for 3 images"):
        expanded(Model(), inputs(4, 2, rows=5), [2, 1])
