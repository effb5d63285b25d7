"""The conformance suite of prompt renderers, which write a model's prompts without its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icltool.contracts import (
    CountsTokens,
    Example,
    HoldsConversations,
    LimitsTokens,
    Model,
    PromptRenderer,
)
from icltool.testing.expectations import expect


def check_prompt_renderer(
    renderer: PromptRenderer, model: Model, examples: Sequence[Example], *, task: str = "caption"
) -> None:
    """Checks the result of `prompt_renderer` of a model's class against `model`, built with the same options; raises
    AssertionError with a description of the fault. `examples` are at least five, as for `check_model`.

    Checks with 0, 1 and 4 demonstrations that text and images of prompts are those of the model; that the image marker, unless
    it is "", is in the text once for each image; that token counts are those of the model, if both count tokens; that the
    token limit is positive or None; that a conversation has as many image parts as the prompt has images, and ends with a user
    turn.
    """
    expect(isinstance(renderer, PromptRenderer), f"{type(renderer).__name__} lacks a part of `icltool.PromptRenderer`")
    for shots in (0, 1, 4):
        demonstrations, query = examples[1 : 1 + shots], examples[0]
        prompt, own = renderer.prompt(task, demonstrations, query), model.prompt(task, demonstrations, query)
        expect(prompt.text == own.text, f"the text of a prompt must be the model's, {own.text!r}, not {prompt.text!r}")
        expect(prompt.images == own.images, f"a prompt must have the model's images {own.images}, not {prompt.images}")
        marker, images = renderer.image_marker, len(prompt.images)
        expect(
            not marker or prompt.text.count(marker) == images,
            f"the image marker {marker!r} must be in the text of a prompt once for each of its {images} images",
        )
        if isinstance(renderer, CountsTokens) and isinstance(model, CountsTokens):
            counts, expected = renderer.token_counts([own]), model.token_counts([own])
            expect(counts == expected, f"token counts must be the model's, {expected}, not {counts}")
        if isinstance(renderer, HoldsConversations):
            _check_messages(renderer.messages(task, demonstrations, query), images)
    if isinstance(renderer, LimitsTokens):
        limit = renderer.token_limit
        expect(limit is None or limit > 0, f"`token_limit` must be positive or None, not {limit!r}")


def _check_messages(messages: Sequence[Mapping[str, Any]], images: int) -> None:
    parts = [part for message in messages for part in message["content"]]
    image_parts = sum(part["type"] == "image" for part in parts)
    expect(image_parts == images, f"the messages must have the prompt's {images} images, not {image_parts}")
    expect(messages[-1]["role"] == "user", f"the last message must be the user's, not the {messages[-1]['role']}'s")
