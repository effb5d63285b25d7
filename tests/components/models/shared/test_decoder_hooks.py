"""Hooks into decoders: beside what `check_model` asks of every adapter, what kinds of attention and of models hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import Example, Prompt, SupportsDecoderHooks
from icltool.errors import ConfigError
from icltool.testing.hooks import adding, check_hooks
from icltool.testing.models import mixed_prompts
from tests.components.models import tiny
from tests.components.models.shared.test_text_prefix_cache import EXAMPLES, loaded
from tests.suites import apart

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]
#: Language models of other kinds than those of the other tests: what a tiny one of each has beside the usual sizes, and
#: whether its heads have projections of their own.
FAMILIES: dict[str, tuple[dict[str, Any], bool]] = {
    "bloom": ({}, False),
    "cohere": ({"logit_scale": 0.5}, True),
    "gemma2": ({"final_logit_softcapping": 2.0}, True),
    "gpt_bigcode": ({}, False),
    "gpt_neox": ({}, False),
    "gpt_oss": ({"num_local_experts": 4, "num_experts_per_tok": 2}, True),
    "gptj": ({"rotary_dim": 4}, True),
    "granite": ({"logits_scaling": 2.0}, True),
    "mamba": ({}, False),
    "mixtral": ({}, True),
    "olmo2": ({}, True),
    "opt": ({}, True),
    "phi3": ({}, False),
    "qwen3": ({}, True),
}


def text_prompts(model: TextModel) -> list[Prompt]:
    return mixed_prompts(model, EXAMPLES, "classification")[1:4]


def log_probs(model: Any, prompts: Sequence[Prompt], features: Any = None) -> list[float]:
    """Summed out of `answer_logits`, all prompts in one batch."""
    batch = model.answer_batch(prompts, features)
    picked = model.answer_logits(batch).log_softmax(-1).gather(1, batch.tokens[:, None])[:, 0]
    return [picked[batch.rows == row].sum().item() for row in range(len(prompts))]


@pytest.mark.parametrize("family", apart("external", set(FAMILIES) - {"bloom", "gemma2", "gpt_oss", "phi3"}, FAMILIES))
def test_language_models_of_other_kinds_conform(family: str, tmp_path: Path) -> None:
    changes, heads = FAMILIES[family]
    model = loaded(family, tmp_path, **changes)
    check_hooks(model, text_prompts(model), None, 1e-4)
    if heads:
        assert [(h.heads, h.head_width) for h in model.attention_heads()] == [(4, 8)] * 2
    else:
        with pytest.raises(ConfigError, match="does not have separate projections for each head"):
            model.attention_heads()


def test_queries_beside_gates_are_no_heads(tmp_path: Path) -> None:
    """Qwen3-Next's projection makes a gate behind each head's query, so the first columns are not the queries."""
    model = loaded("qwen3_next", tmp_path, layer_types=["full_attention"] * 2, mlp_only_layers=[0, 1])
    with pytest.raises(ConfigError, match="does not have separate projections for each head"):
        model.attention_heads()
    check_hooks(model, text_prompts(model), None, 1e-4)


def test_a_decoder_that_is_no_stack_of_layers_is_refused(folder_of: Folder) -> None:
    model = TextModel(RemoteCodeOptions(path=folder_of(tiny.llama), device="cpu"))
    model.model.config.num_hidden_layers = 3
    with pytest.raises(ConfigError, match="not a stack of 3 layers"):
        model.decoder_layers()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("make", [Idefics2Model, TextModel])
def test_each_kind_of_attention_conforms(attention: str, make: Any, folder_of: Folder, images: Images) -> None:
    build = tiny.llama if make is TextModel else tiny.idefics2
    model = make(make.options_model(path=folder_of(build), device="cpu", attention=attention))
    if make is TextModel:
        check_hooks(model, text_prompts(model), None, 1e-4)
    else:
        check_hooks(model, mixed_prompts(model, images("caption"), "caption")[1:4], None, 1e-4)


@pytest.mark.external
@pytest.mark.parametrize("family", ["qwen2-vl", "gemma3"])
def test_eager_attention_conforms_in_chat_models(family: str, folder_of: Folder, images: Images) -> None:
    model = ChatModel(ChatOptions(name=family, path=folder_of(tiny.CHAT[family]), device="cpu", attention="eager"))
    check_hooks(model, mixed_prompts(model, images("caption"), "caption")[1:4], None, 1e-4)


def test_half_precision_conforms(folder_of: Folder) -> None:
    model = TextModel(RemoteCodeOptions(path=folder_of(tiny.llama), device="cpu", dtype="bfloat16"))
    check_hooks(model, text_prompts(model), None, 0.3)
    batch = model.answer_batch(text_prompts(model), None)
    vectors = [torch.zeros(32, requires_grad=True) for _ in range(2)]
    with adding(model.shifted_modules(), vectors):
        model.answer_logits(batch).float().logsumexp(-1).sum().backward()
    assert all(v.grad is not None and v.grad.dtype == torch.float32 for v in vectors)


def test_a_model_that_is_partly_on_disk_conforms(folder_of: Folder, tmp_path: Path) -> None:
    """The modules' weights are elsewhere but for the time that each runs."""
    accelerate = pytest.importorskip("accelerate")
    model = TextModel(RemoteCodeOptions(path=folder_of(tiny.llama), device="cpu"))
    prompts = text_prompts(model)
    expected = log_probs(model, prompts)
    names = ("model.embed_tokens", "model.layers.0", "model.rotary_emb", "lm_head")
    places = {**dict.fromkeys(names, "cpu"), "model.layers.1": "disk", "model.norm": "disk"}
    model.model = accelerate.dispatch_model(model.model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert {str(p.device) for p in model.decoder_layers()[1].parameters()} == {"meta"}
    check_hooks(model, prompts, None, 1e-4)
    assert log_probs(model, prompts) == pytest.approx(expected, abs=1e-5)


def test_what_each_adapter_shifts(folder_of: Folder) -> None:
    idefics2 = Idefics2Model(IdeficsOptions(path=folder_of(tiny.idefics2), device="cpu"))
    assert [type(part).__name__ for part in idefics2.shifted_modules()] == ["MistralMLP"] * 2
    chat = ChatModel(ChatOptions(name="qwen", path=folder_of(tiny.qwen2_5_vl), device="cpu"))
    assert list(chat.shifted_modules()) == list(chat.model.model.language_model.layers) == list(chat.decoder_layers())


@pytest.mark.parametrize(
    "family", apart("external", set(tiny.CHAT) - {"gemma3", "qwen2.5-vl"}, ["idefics2", *tiny.CHAT])
)
def test_prompts_with_and_without_images_share_a_batch(family: str, folder_of: Folder, images: Images) -> None:
    if family == "smolvlm":
        pytest.importorskip("num2words")
    if family == "idefics2":
        model: Any = Idefics2Model(IdeficsOptions(path=folder_of(tiny.idefics2), device="cpu"))
    else:
        model = ChatModel(ChatOptions(name=family, path=folder_of(tiny.CHAT[family]), device="cpu"))
    with_images, (a, b) = images("vqa")[:4], (replace(e, image="") for e in images("vqa")[:2])
    prompts = [
        model.prompt("vqa", d, q)
        for d, q in (([a], b), (with_images[1:3], with_images[0]), ([], a), ([a], with_images[3]))
    ]
    expected = [score.log_prob for score in model.score(prompts, 1)]
    paths = [e.image for e in with_images]
    features = (
        dict(zip(paths, model.image_features(paths, 2), strict=True)) if hasattr(model, "image_features") else None
    )
    for cached_features in (None, features):
        assert log_probs(model, prompts, cached_features) == pytest.approx(expected, abs=1e-4)
    assert log_probs(model, prompts[::2]) == pytest.approx(expected[::2], abs=1e-4)


def test_the_head_sees_the_wanted_positions_alone(folder_of: Folder) -> None:
    model = TextModel(RemoteCodeOptions(path=folder_of(tiny.llama), device="cpu"))
    batch = model.answer_batch(text_prompts(model), None)
    seen: list[tuple[int, ...]] = []
    handle = model.model.lm_head.register_forward_hook(
        lambda head, arguments, outputs: seen.append(tuple(arguments[0].shape))
    )
    model.answer_logits(batch)
    handle.remove()
    assert seen == [(1, len(batch.tokens), 32)]


def test_a_base_model_is_its_weights_and_prompts_wherever_it_lies(folder_of: Folder, tmp_path: Path) -> None:
    folder = folder_of(tiny.qwen2_vl)
    base = ChatModel(ChatOptions(name="qwen", path=folder, device="cpu")).base_model()
    copied = ChatModel(
        ChatOptions(name="qwen", path=str(shutil.copytree(folder, tmp_path / "copy")), device="cpu", dtype="bfloat16")
    )
    assert isinstance(copied, SupportsDecoderHooks)
    assert copied.base_model() == base
    flat = ChatModel(ChatOptions(name="qwen", path=folder, style="flat", device="cpu")).base_model()
    assert (flat.weights, flat.template == base.template) == (base.weights, False)
    other = ChatModel(ChatOptions(name="qwen", path=folder_of(tiny.qwen2_5_vl), device="cpu")).base_model()
    assert other.weights != base.weights
