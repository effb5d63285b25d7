"""The suite notices adapters whose hooks are wrong. They are real, but for one fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import AnswerBatch, Example
from icltool.testing import make_examples
from icltool.testing.hooks import check_hooks
from icltool.testing.models import mixed_prompts
from tests.components.models import tiny

LABELS = ("red bar", "green block", "blue frame", "yellow bar")
TEXTS = [Example(i, "", i, f"text {'more ' * (i % 3)}{i}", LABELS[i % 4], (LABELS[i % 4],)) for i in range(8)]

Damage = Callable[[Any], None]


@contextmanager
def without_hooks(modules: Sequence[Any]) -> Iterator[None]:
    """Within it hooks on the modules do nothing."""
    own = [dict(module._forward_hooks) for module in modules]
    for module in modules:
        module._forward_hooks.clear()
    try:
        yield
    finally:
        for module, hooks in zip(modules, own, strict=True):
            module._forward_hooks.update(hooks)


def wrapped(name: str, change: Callable[..., Any]) -> Damage:
    """`change` is given the model, its own method and what the method is given."""

    def damage(model: Any) -> None:
        real = getattr(model, name)
        setattr(model, name, lambda *arguments: change(model, real, *arguments))

    return damage


def based(**changes: Any) -> Damage:
    return wrapped("base_model", lambda model, real: replace(real(), **changes))


def batched(change: Callable[[AnswerBatch], AnswerBatch]) -> Damage:
    return wrapped("answer_batch", lambda model, real, *arguments: change(real(*arguments)))


def headed(change: Callable[[Any, Any], dict[str, Any]]) -> Damage:
    """`change` is given a layer and its heads."""

    def changed(model: Any, real: Any) -> list[Any]:
        layers = model.decoder_layers()
        return [replace(heads, **change(layer, heads)) for layer, heads in zip(layers, real(), strict=True)]

    return wrapped("attention_heads", changed)


def renamed(model: Any) -> None:
    names = iter(["a", "b", "c", "d"])
    real = model.base_model
    model.base_model = lambda: replace(real(), weights=next(names))


def runs_twice(model: Any) -> None:
    """The first layer's module is run by the second layer too."""
    first, second = model.decoder_layers()
    second.mlp = first.mlp
    model.shifted_modules = lambda: [first.mlp, second]


def one_later(model: Any) -> None:
    """Positions are those of the target tokens, not of the tokens before them; logits are right."""
    read, logits = model.answer_batch, model.answer_logits

    def moved(batch: AnswerBatch, by: int) -> AnswerBatch:
        return replace(batch, columns=batch.columns + by, lasts=batch.lasts + by)

    model.answer_batch = lambda *arguments: moved(read(*arguments), 1)
    model.answer_logits = lambda batch: logits(moved(batch, -1))


def off_by_one(model: Any, real: Any, batch: AnswerBatch) -> Any:
    return real(replace(batch, columns=batch.columns - 1))


def fills_up(model: Any, real: Any, prompts: Any, features: Any) -> Any:
    return real([replace(p, text=p.text or "a", target=p.target or "a") for p in prompts], features)


def without_gradients(model: Any, real: Any, batch: AnswerBatch) -> Any:
    with torch.no_grad():
        return real(batch)


def with_gradients(model: Any, real: Any, batch: AnswerBatch) -> Any:
    with torch.enable_grad():
        return real(batch)


def head_learns(model: Any) -> None:
    model.model.lm_head.weight.requires_grad_()


def another_part_learns(model: Any) -> None:
    model.more = torch.nn.Linear(2, 2)


def cut_off(model: Any) -> None:
    """The second layer lets no gradient through to the first."""
    model.decoder_layers()[1].register_forward_pre_hook(lambda part, arguments: (arguments[0].detach(), *arguments[1:]))


def conditioned(model: Any) -> None:
    """The second layer is told something for the time of a call that it needs in the backward pass, too."""
    states: list[bool] = []
    layer = model.decoder_layers()[1]
    forward = layer.forward

    def conditionally(*arguments: Any, **named: Any) -> Any:
        return forward(arguments[0] * (1.0 if states else 2.0), *arguments[1:], **named)

    layer.forward = conditionally
    for name in ("answer_logits", "score", "generate", "extend_prefix", "generate_from_prefix"):

        def within(model: Any, real: Any, *arguments: Any) -> Any:
            states.append(True)
            try:
                return real(*arguments)
            finally:
                states.pop()

        wrapped(name, within)(model)


def unhooked(name: str, when: Callable[[Any], bool] = lambda arguments: True, last: bool = False) -> Damage:
    """A method that passes by all hooks, or those of the last layer, for some of what it is given."""

    def passing(model: Any, real: Any, *arguments: Any) -> Any:
        with without_hooks(model.decoder_layers()[-1 if last else 0 :] if when(arguments[0]) else []):
            return real(*arguments)

    return wrapped(name, passing)


def read_without(model: Any) -> None:
    """What is read under a hook is computed without it."""
    read, logits = model.answer_batch, model.answer_logits

    def remembering(*arguments: Any) -> AnswerBatch:
        batch: AnswerBatch = read(*arguments)
        if not model.decoder_layers()[0]._forward_hooks:
            return batch
        with without_hooks(model.decoder_layers()), torch.no_grad():
            return replace(batch, inputs={**batch.inputs, "ready": logits(batch)})

    model.answer_batch = remembering
    model.answer_logits = lambda batch: batch.inputs.get("ready") if "ready" in batch.inputs else logits(batch)


def only_some_tokens(later: bool) -> Damage:
    """`generate` passes by hooks on the last layer in the prompt, or for later tokens; nothing is kept between prompts."""

    def damage(model: Any) -> None:
        whole(model)
        last, inner = model.decoder_layers()[-1], model.model.generate

        def generate(**named: Any) -> Any:
            hooks = dict(last._forward_hooks)

            def before(module: Any, arguments: Any, remaining: Any) -> None:
                columns = (arguments[0] if arguments else remaining["input_ids"]).shape[1]
                last._forward_hooks.clear()
                if (columns > 1) == later:
                    last._forward_hooks.update(hooks)

            handle = model.model.register_forward_pre_hook(before, with_kwargs=True)
            try:
                return inner(**named)
            finally:
                handle.remove()
                last._forward_hooks.update(hooks)

        model.model.generate = generate

    return damage


def whole(model: Any) -> None:
    """Prompts are computed whole."""
    for name in ("prompt_tokens", "extend_prefix", "generate_from_prefix"):
        delattr(model, name)


def silent(model: Any) -> None:
    whole(model)
    real = model.generate
    hooked = model.decoder_layers()[-1]._forward_hooks
    model.generate = lambda prompts, *arguments: [""] * len(prompts) if hooked else real(prompts, *arguments)


def dangling(layer: Any, heads: Any) -> dict[str, Any]:
    """A projection that is run on the layer's input to no purpose."""
    if not hasattr(layer, "more"):
        layer.more = torch.nn.Linear(32, 32).requires_grad_(False)
        layer.register_forward_pre_hook(lambda part, arguments: (layer.more(arguments[0]), None)[1])
    return {"output": layer.more}


def swallowing(model: Any, real: Any, *arguments: Any) -> Any:
    try:
        return real(*arguments)
    except Exception:
        return None


def left_behind(weight: Callable[[Any], Any]) -> Damage:
    """What is changed for the time of a call stays so after an error."""

    def broken(model: Any, real: Any, *arguments: Any) -> Any:
        try:
            return real(*arguments)
        except Exception:
            weight(model).mul_(1.5)
            raise

    return wrapped("answer_logits", broken)


def changed_logits(model: Any) -> None:
    model.scale = torch.ones(1)
    real = model.answer_logits
    model.answer_logits = lambda batch: real(batch) * model.scale
    left_behind(lambda model: model.scale)(model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


def listed(name: str, change: Callable[[list[Any]], list[Any]]) -> Damage:
    return wrapped(name, lambda model, real: change(real()))


FAULTS: dict[str, tuple[Damage, str]] = {
    "base model: no such thing": (lambda m: setattr(m, "base_model", dict), "must give a ModelIdentity, not dict"),
    "base model: another name": (based(name="other"), "`base_model` has the name 'other'"),
    "base model: no hash": (based(weights=""), "needs hashes of weights and template"),
    "base model: unsteady": (renamed, "must stay as it is"),
    "base model: sites": (based(sites=3), "has 3 sites, of 2"),
    "base model: width": (based(width=31), r"output is \[3, T, 31\], as `base_model` says; not \[3, \d+, 32\]"),
    "modules: too few": (listed("shifted_modules", lambda parts: parts[1:]), "1 shifted modules for 2 layers"),
    "modules: one twice": (listed("decoder_layers", lambda parts: parts[:1] * 2), "names a module twice"),
    "modules: run twice": (runs_twice, "runs twice in one forward pass"),
    "modules: never run": (
        listed("shifted_modules", lambda parts: [torch.nn.Identity(), parts[1]]),
        "1 modules that are named never run",
    ),
    "modules: no states": (
        listed("shifted_modules", lambda parts: [layer.mlp.up_proj for layer in parts]),
        r"not \[3, \d+, 48\]",
    ),
    "batch: missing rows": (batched(lambda b: replace(b, rows=b.rows[1:])), "`rows` has one entry for each"),
    "batch: no integers": (batched(lambda b: replace(b, tokens=b.tokens.int())), "`tokens` is int64"),
    "batch: mixed rows": (batched(lambda b: replace(b, rows=b.rows.flip(0))), "go through targets prompt by prompt"),
    "batch: columns": (batched(lambda b: replace(b, columns=b.columns.flip(0))), "`columns` begin at `lasts`"),
    "batch: lasts": (batched(lambda b: replace(b, lasts=b.lasts - 1)), "`columns` begin at `lasts`"),
    "batch: too few lasts": (batched(lambda b: replace(b, lasts=b.lasts[:-1])), "`lasts` has one entry for each of 3"),
    "batch: other places": (one_later, "are not the positions that their logits are made at"),
    "batch: other targets": (batched(lambda b: replace(b, tokens=b.tokens + 1)), "do not give what `score` does"),
    "batch: empty targets": (wrapped("answer_batch", fills_up), "is a ValueError"),
    "logits: one early": (wrapped("answer_logits", off_by_one), "do not give what `score` does"),
    "logits: all": (
        wrapped("answer_logits", lambda model, real, batch: model.model(**batch.inputs).logits),
        "`answer_logits` are",
    ),
    "gradients: none": (
        wrapped("answer_logits", without_gradients),
        "no gradient reaches what is added to the outputs",
    ),
    "gradients: cut off": (cut_off, "no gradient reaches what is added to the output of shifted module 0"),
    "gradients: of the head": (head_learns, "logits depend on something that is learned"),
    "gradients: of another part": (another_part_learns, "own weights take part in training"),
    "gradients: forced": (wrapped("answer_logits", with_gradients), r"`torch.no_grad\(\)` is overridden"),
    "gradients: computed twice": (conditioned, "differ where layers are computed twice"),
    "hooks: not in score": (unhooked("score"), "leaves a score as it is"),
    "hooks: not in score of one": (
        unhooked("score", lambda prompts: len(prompts) == 1, last=True),
        "under a hook, scores depend on the batch",
    ),
    "hooks: not while reading": (read_without, "under a hook, `answer_logits` do not give what `score` does"),
    "hooks: not in generate": (unhooked("generate"), "leaves all answers as they are"),
    "hooks: not in generate of one": (
        unhooked("generate", lambda prompts: len(prompts) == 1),
        "`generate` with 1 beams depends on the batch",
    ),
    "hooks: not in extend_prefix": (unhooked("extend_prefix"), "`extend_prefix` does not give what `score` does"),
    "hooks: not in a later extend_prefix": (
        unhooked("extend_prefix", lambda spans: spans[0].start > 0, last=True),
        "`extend_prefix` does not give what `score` does",
    ),
    "hooks: not in generate_from_prefix": (unhooked("generate_from_prefix"), "`generate_from_prefix` gives"),
    "hooks: not for new tokens": (only_some_tokens(later=True), "with 1 beams: hooks do not see the last token"),
    "hooks: not for the prompt": (only_some_tokens(later=False), "with 1 beams: hooks do not see the last token"),
    "hooks: no answers": (silent, "answers nothing under a hook"),
    "heads: too few layers": (listed("attention_heads", lambda parts: parts[1:]), "names 1 layers of 2"),
    "heads: too few": (headed(lambda layer, heads: {"heads": 3}), r"in layer 0 is \[B, T, 3 x 8\]"),
    "heads: too many": (headed(lambda layer, heads: {"heads": 5}), "`query` has 32 columns of 40"),
    "heads: too wide": (headed(lambda layer, heads: {"heads": 2, "head_width": 16}), "not that head's queries alone"),
    "heads: too narrow": (headed(lambda layer, heads: {"heads": 8, "head_width": 4}), "not that head's queries alone"),
    "heads: keys": (
        headed(lambda layer, heads: {"query": layer.self_attn.k_proj}),
        "`query` has 16 columns of 32",
    ),
    "heads: no queries": (headed(lambda layer, heads: {"query": heads.output}), "not that head's queries alone"),
    "heads: no values": (headed(lambda layer, heads: {"value": layer.self_attn.k_proj}), "does not make the values"),
    "heads: no part of the model": (headed(dangling), "make no difference to the logits"),
    "errors: swallowed": (wrapped("answer_logits", swallowing), "must reach the caller: it raised nothing"),
    "errors: a weight stays changed": (
        left_behind(lambda model: model.model.lm_head.weight),
        "scores are not as before",
    ),
    "errors: logits stay changed": (changed_logits, "logits are not as before"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_notices(fault: str, folder: str) -> None:
    model = TextModel(RemoteCodeOptions(path=folder, device="cpu"))
    prompts = mixed_prompts(model, TEXTS, "classification")[1:4]
    damage, sentence = FAULTS[fault]
    damage(model)
    with pytest.raises(AssertionError, match=sentence):
        check_hooks(model, prompts, None, 1e-4)


def test_the_same_adapter_without_a_fault_passes(folder: str) -> None:
    model = TextModel(RemoteCodeOptions(path=folder, device="cpu"))
    check_hooks(model, mixed_prompts(model, TEXTS, "classification")[1:4], None, 1e-4)


def test_features_that_give_other_logits_are_noticed(tmp_path: Path) -> None:
    model = Idefics2Model(IdeficsOptions(path=tiny.idefics2(tmp_path), device="cpu"))
    examples = make_examples(tmp_path, 8, size=32)
    prompts = mixed_prompts(model, examples, "caption")[1:4]
    paths = [example.image for example in examples]
    features = dict(zip(paths, model.image_features(paths, 8), strict=True))

    def another_image(model: Any, real: Any, prompts: Any, arguments: Any) -> AnswerBatch:
        return real(
            prompts, dict(zip(paths, reversed(features.values()), strict=True)) if arguments is None else arguments
        )

    check_hooks(model, prompts, features, 1e-4)
    wrapped("answer_batch", another_image)(model)
    with pytest.raises(AssertionError, match="from images differ from those from their features"):
        check_hooks(model, prompts, features, 1e-4)
