"""Captioners against the classes of transformers themselves, with ids that are put together here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor

from icltool.testing import PlainTwin, torch_twin, torch_twin_apart
from tests.components.models.tiny_captioners import QUERIES


def pixels(folder: str, paths: tuple[str, ...]) -> torch.Tensor:
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor([Image.open(path).convert("RGB") for path in paths], return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]


def prefixed_inputs(model: Any, folder: str) -> Callable[[Any, str], dict[str, Any]]:
    """One prompt as Blip2ForConditionalGeneration and InstructBlipForConditionalGeneration read it."""

    def inputs(prompt: Any, text: str) -> dict[str, Any]:
        expanded = text.replace("<image>", "<image>" * QUERIES)
        actual = dict(model.tokenizer(expanded, add_special_tokens=False, return_tensors="pt"))
        actual.pop("token_type_ids", None)
        actual["pixel_values"] = pixels(folder, prompt.images)
        if hasattr(model.processor, "qformer_tokenizer"):
            qformer_inputs = model.processor.qformer_tokenizer(["a photo of"] * len(prompt.images), return_tensors="pt")
            actual["qformer_input_ids"], actual["qformer_attention_mask"] = (
                qformer_inputs["input_ids"],
                qformer_inputs["attention_mask"],
            )
        return actual

    return inputs


def prefixed_twin(model: Any, folder: str) -> PlainTwin:
    """BLIP-2 or InstructBLIP, captions."""
    inputs = prefixed_inputs(model, folder)
    if not model.target_apart:
        return torch_twin(model.model, model.tokenizer, inputs, model.end_tokens, [model.placeholder])
    start = model.model.config.text_config.decoder_start_token_id
    return torch_twin_apart(
        model.model, model.tokenizer, lambda p: inputs(p, p.text), model.end_tokens, start, [model.placeholder]
    )


def blip_twin(model: Any, folder: str) -> PlainTwin:
    def inputs(prompt: Any, text: str) -> dict[str, Any]:
        actual = dict(model.tokenizer(text, add_special_tokens=False, return_tensors="pt"))
        actual.pop("token_type_ids", None)
        return {**actual, "pixel_values": pixels(folder, prompt.images)}

    start = model.model.config.text_config.bos_token_id
    return torch_twin(model.model, model.tokenizer, inputs, [3], [start, start + 1])
