"""The suite notices adapters that go on from keys and values in a wrong way. They are real, but for one fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared import cross_attention_prefix_cache, decoder_prefix_cache, prefix_cache
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import Example, PrefixExtension, PromptTokens
from icltool.testing import make_examples
from icltool.testing.models import mixed_prompts
from icltool.testing.prefixes import check_prefixes
from tests.components.models import tiny
from tests.conftest import Scenery

LABELS = ("red bar", "green block", "blue frame", "yellow bar")
TEXTS = [Example(i, "", i, f"text {'more ' * (i % 3)}{i}", LABELS[i % 4], (LABELS[i % 4],)) for i in range(8)]

Damage = Callable[[Any, pytest.MonkeyPatch], None]


def changed_spans(change: Callable[[Any, int], Any], module: Any = decoder_prefix_cache) -> Damage:
    """A fault in the padded batch; `change` is given the batch and the columns of its past."""

    def damage(model: Any, patch: pytest.MonkeyPatch) -> None:
        real = prefix_cache.padded_spans

        def padded(spans: Any, pad: int, device: Any, past: int) -> Any:
            return change(real(spans, pad, device, past), past)

        patch.setattr(module, "padded_spans", padded)

    return damage


def shifted(batch: Any, past: int) -> Any:
    """Positions are those of the columns, padding included."""
    return replace(batch, positions=past + torch.arange(batch.ids.shape[1]).expand_as(batch.ids))


def sees_padding(batch: Any, past: int) -> Any:
    visible = batch.visible.clone()
    visible[..., :past] = True
    return replace(batch, visible=visible)


def sees_what_follows(batch: Any, past: int) -> Any:
    return replace(batch, visible=torch.ones_like(batch.visible))


def forgets_the_first(batch: Any, past: int) -> Any:
    visible = batch.visible.clone()
    visible[..., :1] &= past == 0
    return replace(batch, visible=visible)


def changed_tokens(change: Callable[[PromptTokens], PromptTokens]) -> Damage:
    def damage(model: Any, patch: pytest.MonkeyPatch) -> None:
        real = model.prompt_tokens
        patch.setattr(
            model, "prompt_tokens", lambda prompts, target: [change(t) for t in real(prompts, target)], raising=False
        )

    return damage


def without_places(tokens: PromptTokens) -> PromptTokens:
    return replace(tokens, units=tokens.ids)


def changed_extension(change: Callable[[PrefixExtension, Sequence[Any], bool], PrefixExtension]) -> Damage:
    def damage(model: Any, patch: pytest.MonkeyPatch) -> None:
        real = model.extend_prefix

        def extend_prefix(spans: Any, past: Any, features: Any, keep: bool) -> PrefixExtension:
            return change(real(spans, past, features, keep), spans, keep)

        patch.setattr(model, "extend_prefix", extend_prefix, raising=False)

    return damage


def always_keeps(actual: PrefixExtension, spans: Sequence[Any], keep: bool) -> PrefixExtension:
    return actual if keep else replace(actual, keys_values=[])


def in_the_order_of_length(actual: PrefixExtension, spans: Sequence[Any], keep: bool) -> PrefixExtension:
    order = sorted(range(len(spans)), key=lambda k: spans[k].end - spans[k].start)
    return replace(actual, log_probs=actual.log_probs[order])


def padded_on_the_left(actual: PrefixExtension, spans: Sequence[Any], keep: bool) -> PrefixExtension:
    """Of keys and values the first tokens are lost, as if the padding stood there."""
    if actual.keys_values is None:
        return actual
    turned = [(keys.roll(1, dims=2), values.roll(1, dims=2)) for keys, values in actual.keys_values]
    return replace(actual, keys_values=turned)


def answers_without_a_mask(model: Any, patch: pytest.MonkeyPatch) -> None:
    real = model.model.generate

    def generate(**inputs: Any) -> Any:
        if inputs.keys() & {"cache", "past_key_values"}:
            inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
        return real(**inputs)

    patch.setattr(model.model, "generate", generate)


def answers_as_prompted(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model, "generate_from_prefix", lambda prompts, *rest: ["red"] * len(prompts), raising=False)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    return TextModel(RemoteCodeOptions(path=tiny.gpt2(tmp_path_factory.mktemp("gpt2")), device="cpu"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (changed_spans(shifted), "cut .* have other log-probabilities"),
        (changed_spans(sees_padding), "cut .* have other log-probabilities"),
        (changed_spans(sees_what_follows), "in one pass have other log-probabilities"),
        (changed_spans(forgets_the_first), "cut .* have other log-probabilities"),
        (changed_tokens(lambda t: replace(t, target_start=t.target_start - 1)), "after `target_start`"),
        (changed_tokens(lambda t: replace(t, shared_end=len(t.ids))), "`shared_end` must be in"),
        (changed_tokens(lambda t: replace(t, units=t.units[1:])), "as many units as tokens"),
        (changed_extension(always_keeps), "keys and values are wrong"),
        (changed_extension(in_the_order_of_length), "in one pass have other log-probabilities"),
        (changed_extension(padded_on_the_left), "cut .* have other log-probabilities"),
        (answers_without_a_mask, "`generate_from_prefix` with 1 beams"),
        (answers_as_prompted, "`generate_from_prefix` with 1 beams"),
    ],
)
def test_the_suite_notices(
    damage: Damage, sentence: str, text_model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = mixed_prompts(text_model, TEXTS, "classification")
    damage(text_model, monkeypatch)
    with pytest.raises(AssertionError, match=sentence):
        check_prefixes(text_model, prompts, None, 1e-4)


def test_the_same_adapter_without_a_fault_passes(text_model: TextModel) -> None:
    check_prefixes(text_model, mixed_prompts(text_model, TEXTS, "classification"), None, 1e-4)


def changed_images_of(model: Any, patch: pytest.MonkeyPatch) -> None:
    """IDEFICS's marker in front of an image still sees the image before it, which may stand in the past."""
    real = cross_attention_prefix_cache.attended_by

    def images_of(span: Any, image_token: int) -> tuple[list[str], list[int]]:
        images, places = real(span, image_token)
        own = sum(token == image_token for token in span.tokens.ids[span.start : span.end])
        lost = len(images) - own
        return images[lost:], [place - lost if place >= lost else -1 for place in places]

    patch.setattr(cross_attention_prefix_cache, "attended_by", images_of)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (changed_images_of, "cut .* have other log-probabilities"),
        (changed_spans(shifted), "cut .* have other log-probabilities"),
        (changed_spans(sees_padding), "cut .* have other log-probabilities"),
        (changed_tokens(without_places), "prompts with other images"),
    ],
)
def test_the_suite_notices_what_idefics_forgets(
    damage: Damage, sentence: str, tiny_model: Any, scenery: Scenery, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = mixed_prompts(tiny_model, scenery.mixed(8, seed=4), "caption")
    damage(tiny_model, monkeypatch)
    with pytest.raises(AssertionError, match=sentence):
        check_prefixes(tiny_model, prompts, None, 1e-4)


def counts_from_the_span(model: Any, patch: pytest.MonkeyPatch) -> None:
    """The first image in a span is shown from its first token on, wherever the span begins."""
    from icltool.components.models.shared import image_prefix_cache

    real = image_prefix_cache.ImagePrefixCache._inputs

    def inputs(self: Any, batch: Any, spans: Any, features: Any) -> Any:
        turned = []
        for span in spans:
            units, number, last = list(span.tokens.units), 0, None
            for place in range(span.start, span.end):
                unit = units[place]
                if isinstance(unit, tuple):
                    number = number + 1 if unit[1] == last else 0
                    last = unit[1]
                    units[place] = (unit[0], unit[1], number)
            turned.append(replace(span, tokens=replace(span.tokens, units=tuple(units))))
        return real(self, batch, turned, features)

    patch.setattr(image_prefix_cache.ImagePrefixCache, "_inputs", inputs)


def one_position_each(model: Any, patch: pytest.MonkeyPatch) -> None:
    from icltool.components.models.shared import image_prefix_cache

    patch.setattr(image_prefix_cache.ThreePositions, "_positions", lambda self, batch, spans: batch.positions)


@pytest.fixture(scope="module")
def imaged(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return make_examples(tmp_path_factory.mktemp("images"), 8, size=32)


def idefics2(folder: Path) -> Any:
    return Idefics2Model(IdeficsOptions(path=tiny.idefics2(folder), device="cpu"))


def qwen(folder: Path) -> Any:
    if not tiny.takes_features():
        pytest.skip("this release of transformers takes no ready image features")
    return ChatModel(ChatOptions(name="qwen", path=tiny.qwen2_vl(folder), device="cpu"))


def gemma(folder: Path) -> Any:
    if not tiny.takes_features():
        pytest.skip("this release of transformers takes no ready image features")
    return ChatModel(ChatOptions(name="gemma", path=tiny.gemma3(folder), device="cpu"))


def test_images_whose_tokens_attend_to_each_other_pass(tmp_path: Path, imaged: list[Example]) -> None:
    model = gemma(tmp_path)
    check_prefixes(model, mixed_prompts(model, imaged, "caption")[1:4], None, 1e-4)


def sees_only_what_precedes(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(prefix_cache.PaddedSpans, "joined", lambda self, spans: self)


def begins_in_an_image(tokens: PromptTokens) -> PromptTokens:
    return replace(tokens, shared_end=tokens.shared_end + 1)


@pytest.mark.parametrize(
    ("make", "damage", "sentence"),
    [
        (idefics2, counts_from_the_span, "cut .* have other log-probabilities"),
        (qwen, one_position_each, "in one pass have other log-probabilities"),
        (gemma, sees_only_what_precedes, "in one pass have other log-probabilities"),
        (gemma, changed_tokens(lambda t: replace(t, blocks=())), "in one pass have other log-probabilities"),
        (gemma, changed_tokens(begins_in_an_image), "must not begin inside a block"),
    ],
)
def test_the_suite_notices_misplaced_images(
    make: Callable[[Path], Any],
    damage: Damage,
    sentence: str,
    tmp_path: Path,
    imaged: list[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make(tmp_path)
    prompts = mixed_prompts(model, imaged, "caption")
    damage(model, monkeypatch)
    with pytest.raises(AssertionError, match=sentence):
        check_prefixes(model, prompts, None, 1e-4)
