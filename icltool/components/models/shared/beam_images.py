"""Gives every beam the images of its own prompt.

`generate` of transformers repeats each row of every input once per beam. Inputs with a row per image or tile, not per prompt,
end up in the wrong order (1, 1, 2, 2 instead of 1, 2, 1, 2) if a prompt has several images. Newer releases encode images
first and order the result correctly; many models of older releases, and some of newer ones, do not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


#: Classes whose own expansion takes tokens for images and fails (EXAONE 4.5 before transformers 5.18).
_MISCOUNTED = frozenset({"Exaone4_5_ForConditionalGeneration"})


@contextmanager
def images_by_beam(model: Any, inputs: Mapping[str, torch.Tensor], images: Sequence[int]) -> Iterator[None]:
    """A context in which `model.generate` on these inputs of B prompts gives each beam the images of its prompt in order.

    `images` [B] are the numbers of images per prompt. Does nothing for a model that orders them itself. Raises ConfigError if
    the rows of an input cannot be assigned to prompts.
    """
    flat = {
        name: value.shape[0]
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] != len(images)
    }
    if not flat or _in_order(model):
        yield
        return
    repeat = _expansion(model)

    def expanded(expand_size: int = 1, **arguments: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        if expand_size == 1:  # one beam: nothing is repeated
            return repeat(expand_size=expand_size, **arguments)
        tokens = _image_tokens(model.config, inputs["input_ids"])
        rows = {name: _rows_of(name, count, images, tokens) for name, count in flat.items()}
        image_inputs = {name: arguments.pop(name) for name in rows.keys() & arguments.keys()}
        ids, others = repeat(expand_size=expand_size, **arguments)
        for name, value in image_inputs.items():
            parts = [part for part in value.split(rows[name]) for _ in range(expand_size)]
            others[name] = torch.cat(parts)
        return ids, others

    model._expand_inputs_for_generation = expanded
    try:
        yield
    finally:
        del model._expand_inputs_for_generation


def _in_order(model: Any) -> bool:
    """Whether the model expands images itself, or `generate` encodes them before they are expanded."""
    return _expands_itself(model) or "mm_encoder_outputs" in inspect.signature(model.forward).parameters


def _expands_itself(model: Any) -> bool:
    """Whether the model has a way of its own to repeat inputs for the beams, and one that works."""
    from transformers import GenerationMixin

    own = type(model)._expand_inputs_for_generation is not GenerationMixin._expand_inputs_for_generation
    return own and type(model).__name__ not in _MISCOUNTED


def _expansion(model: Any) -> Callable[..., tuple[torch.Tensor, dict[str, Any]]]:
    """What repeats the inputs for the beams."""
    from transformers import GenerationMixin

    if _expands_itself(model):
        return model._expand_inputs_for_generation  # type: ignore[no-any-return]
    # a static method in older releases, a method in newer ones
    return vars(GenerationMixin)["_expand_inputs_for_generation"].__get__(model)  # type: ignore[no-any-return]


def _image_tokens(config: PreTrainedConfig, ids: torch.Tensor) -> list[int]:
    """The number of image tokens in each prompt, ids [B, T]."""
    token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    counts: list[int] = ids.eq(-1 if token is None else token).sum(1).tolist()
    return counts


def _rows_of(name: str, rows: int, images: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """The number of an input's rows per prompt: one per image, or in proportion to the image tokens."""
    if rows == sum(images):
        return list(images)
    shares = [rows * count // max(1, sum(tokens)) for count in tokens]
    if [share * sum(tokens) for share in shares] != [rows * count for count in tokens] or sum(shares) != rows:
        raise ConfigError(
            f"images cannot be assigned to beams: {name} has {rows} rows for {sum(images)} images",
            "use --num-beams 1, or install a newer transformers",
        )
    return shares
