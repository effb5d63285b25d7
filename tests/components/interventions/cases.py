"""Models of several families with prompts of several lengths, and a decoder small enough to be written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import AnswerBatch, AttentionHeads, ModelIdentity, Prompt
from tests.components.models import tiny
from tests.conftest import Scenery
from tests.suites import apart

#: Cross attention beside, grouped values, heads that are wider than the states allow.
FAMILIES = apart("external", ["llama", "gemma3"], ["idefics", "llama", "qwen2.5-vl", "gemma3"])
Case = tuple[Any, list[Prompt]]


def case_of(family: str, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Case:
    """(model, prompts with targets)."""
    if family == "llama":
        model: Any = TextModel(RemoteCodeOptions(name="llama", path=tiny.llama(factory.mktemp("llama")), device="cpu"))
        ends = ("", "\n", " block", "")
        lines = [f"<s>Input:what is {'a ' * k}red bar Label:" for k in (1, 2, 3, 0)]
        return model, [Prompt(line, (), f"blue frame{end}") for line, end in zip(lines, ends, strict=True)]
    if family == "idefics":
        model = request.getfixturevalue("tiny_model")
    else:
        model = ChatModel(ChatOptions(name=family, path=tiny.CHAT[family](factory.mktemp("chat")), device="cpu"))
    scenery: Scenery = request.getfixturevalue("scenery")
    examples = scenery.mixed(5, seed=4)
    return model, [model.prompt("caption", examples[1 : 1 + k], examples[0]) for k in (0, 2, 1)]


def logits_of(model: Any, prompts: list[Prompt]) -> Tensor:
    """Logits of all targets, with gradients where something wants them."""
    actual: Tensor = model.answer_logits(model.answer_batch(prompts, None))
    return actual


def modules_of(model: Any) -> list[Any]:
    """All modules of the decoder's layers in order, by name, with their hooks and the weights' wish for gradients."""
    return [
        (
            name,
            part,
            list(part._forward_hooks),
            list(part._forward_pre_hooks),
            sorted(vars(part)),
            part.training,
            [(weight, weight.requires_grad) for weight in part.parameters(recurse=False)],
        )
        for layer in model.decoder_layers()
        for name, part in layer.named_modules()
    ]


class ToyAttention(torch.nn.Module):
    """Causal self-attention of `heads` heads; with `fused` one matrix makes queries, keys and values."""

    def __init__(self, width: int, heads: int, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        if fused:
            self.qkv = torch.nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = (torch.nn.Linear(width, width) for _ in range(3))
        self.o = torch.nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(mixed.transpose(1, 2).flatten(-2))


class ToyModel(torch.nn.Module):
    """Layers of attention with a residual stream; says of itself what SupportsDecoderHooks asks for."""

    name = "toy"

    def __init__(self, layers: int = 2, width: int = 8, heads: int = 2, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.width = width
        self.layers = torch.nn.ModuleList(ToyAttention(width, heads, fused) for _ in range(layers))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x

    def base_model(self) -> ModelIdentity:
        return ModelIdentity("toy", "weights", "template", len(self.layers), self.width)

    def decoder_layers(self) -> list[Any]:
        return list(self.layers)

    def shifted_modules(self) -> list[Any]:
        return list(self.layers)

    def attention_heads(self) -> list[AttentionHeads]:
        return [
            AttentionHeads(
                a.heads, self.width // a.heads, a.qkv if a.fused else a.q, a.qkv if a.fused else a.v, a.o
            )  # type: ignore[union-attr]
            for a in self.layers
        ]  # fmt: skip

    def answer_batch(self, prompts: Any, features: Any) -> AnswerBatch:
        raise AssertionError("the toy is run by hand, without prompts")

    def answer_logits(self, batch: AnswerBatch) -> Any:
        raise AssertionError("the toy is run by hand, without prompts")
