"""The conformance suite of models (LVLM adapters)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.contracts import (
    Example,
    Features,
    GenerationOptions,
    Model,
    PreparesImages,
    Prompt,
    RendersPrompts,
    SupportsDecoderHooks,
    SupportsImageCache,
    SupportsPrefixCache,
    TargetScore,
)
from icltool.contracts.model import HasPrecision, RunsOnDevice
from icltool.errors import ConfigError, IclError
from icltool.plugin.manager import component, load_registry
from icltool.testing.alone import PromptsAlone, valid_scores
from icltool.testing.expectations import expect, expect_equal, expect_error
from icltool.testing.hooks import check_hooks
from icltool.testing.images import check_prepared_images
from icltool.testing.plain import PlainTwin
from icltool.testing.prefixes import check_prefixes
from icltool.testing.prompts import check_prompt_renderer

if TYPE_CHECKING:
    pass

_OPTIONS = (GenerationOptions(max_new_tokens=6, num_beams=1), GenerationOptions(max_new_tokens=6, num_beams=3))


def check_model(
    model: Model | str,
    examples: Sequence[Example],
    *,
    task: str = "caption",
    batch_size: int = 3,
    tolerance: float = 1e-4,
    twin: PlainTwin | None = None,
) -> None:
    """Checks an LVLM adapter against `icltool.Model`; raises AssertionError with a description of the fault. `model` may be a
    registered name: the model is then built as the commands build it.

    `examples` are at least eight, with different images and labels of two or more words separated by single blanks, in words
    that the model's tokenizer knows; for a text-only model they have no images (and different texts). `tolerance` is in nats:
    1e-4 suits float32, half precision needs about 0.1. `twin` computes scores and answers of single prompts by plain full
    forward passes (see `icltool.testing.torch_twin`).

    Checks `prompt` (k + 1 images for k demonstrations, in order, or the query's alone for a model with `images_per_prompt =
    1`; the query's label in the target only; ConfigError for an unknown task); `clean` (cuts where the next example begins;
    idempotent); `score` (a batch equals single prompts, padded equals unpadded, padding on the left equals padding on the
    right if the adapter has a `padding_side`, the images and their order matter; token counts and log-probabilities of a
    target's parts add up, so that no token of the prompt is counted and none of the target is missed (with `target_apart =
    True`: a part of a target has fewer tokens and is no less probable than the whole); ValueError for an empty text or target;
    IclError for a missing image); and `generate` (independent of the batch and of the target). With an image cache, scores and
    answers from image features must equal those from the images; with a prefix cache, prompts cut anywhere must give the same
    scores and answers. Decoder hooks are checked by `icltool.testing.hooks.check_hooks`. With a `twin`, scores, greedy answers
    and answers of beam search must equal those of the twin. If the class of a registered model writes prompts without the
    weights, `check_prompt_renderer` checks that.
    """
    if isinstance(model, str):
        adapter: Model = component("models", model)
        if isinstance(type(adapter), RendersPrompts):
            check_prompt_renderer(load_registry().prompt_renderer(model), adapter, examples, task=task)
    else:
        adapter = model
    _check_model(adapter, examples, task, batch_size, tolerance, twin)


def _check_model(
    model: Model, examples: Sequence[Example], task: str, batch_size: int, tolerance: float, twin: PlainTwin | None
) -> None:
    expect(isinstance(model, Model), f"{type(model).__name__} lacks a part of the contract `icltool.Model`")
    expect(isinstance(model.name, str) and model.name, "`name` must be a non-empty string")
    mark = model.fingerprint()
    expect(
        isinstance(mark, str) and mark and model.fingerprint() == mark, "`fingerprint()` must be a string that stays"
    )
    _check_place(model)
    expect(
        len(examples) >= 8 and all(len(e.label.split(" ")) >= 2 for e in examples),
        "give eight examples with two words each",
    )
    _check_prompt(model, examples, task)
    _check_clean(model, examples, task)
    alone = PromptsAlone(model)
    _check_scores(model, alone, examples, task, batch_size, tolerance)
    _check_parts(model, alone, examples, task, tolerance)
    _check_bad_prompts(model, examples, task)
    prompts = mixed_prompts(model, examples, task)
    _check_generation(model, alone, prompts, batch_size)
    if isinstance(model, SupportsImageCache):
        _check_features(model, alone, prompts, batch_size, tolerance)
    if isinstance(model, PreparesImages) and any(e.image for e in examples):
        check_prepared_images(model, examples, batch_size=batch_size, tolerance=tolerance)
    if twin is not None:
        _check_twin(model, alone, prompts, batch_size, tolerance, twin)
    _check_inner_abilities(model, alone, prompts, batch_size, tolerance)


def _check_place(model: Model) -> None:
    """RunsOnDevice, HasPrecision."""
    if isinstance(model, RunsOnDevice):
        expect(bool(str(model.device)), f"`device` must be the torch.device that takes inputs, not {model.device!r}")
    if isinstance(model, HasPrecision):
        precision = model.precision
        expect(isinstance(precision, str) and precision, f"`precision` must be a name, not {precision!r}")


def _check_inner_abilities(
    model: Model, alone: PromptsAlone, prompts: list[Prompt], batch_size: int, tolerance: float
) -> None:
    """Checks the abilities that expose a model's inner states: prefix cache and decoder hooks."""
    if isinstance(model, RunsOnDevice):
        expect(type(model.device).__name__ == "device", f"`device` must be a torch.device, not {model.device!r}")
    features = None
    if isinstance(model, SupportsImageCache):
        paths = list(dict.fromkeys(path for prompt in prompts for path in prompt.images))
        features = dict(zip(paths, model.image_features(paths, batch_size), strict=True)) if paths else None
    if isinstance(model, SupportsPrefixCache):
        check_prefixes(model, prompts, None, tolerance, alone)
        if features is not None:
            check_prefixes(model, prompts, features, tolerance, alone)
    if isinstance(model, SupportsDecoderHooks):
        check_hooks(model, prompts[1:4], features, tolerance)


def mixed_prompts(model: Model, examples: Sequence[Example], task: str) -> list[Prompt]:
    """Prompts of 0 to 4 demonstrations, alternately long and short; one of them has two images in an example, if the model
    reads several."""
    several = [] if _one_image(model) or not examples[0].image else [_pair(examples)]
    return [
        *(model.prompt(task, examples[1 : 1 + k], examples[0]) for k in (4, 0, 2, 1)),
        *(model.prompt(task, [pair], examples[5]) for pair in several),
        *(model.prompt(task, examples[4 : 4 + k], examples[3]) for k in (0, 3)),
    ]


def _pair(examples: Sequence[Example]) -> Example:
    """The second example with the third one's image behind its own."""
    return replace(examples[1], more_images=(examples[2].image,), more_image_ids=(examples[2].image_id,))


def _check_prompt(model: Model, examples: Sequence[Example], task: str) -> None:
    query = examples[0]
    for shots in (0, 1, 4):
        demonstrations = examples[1 : 1 + shots]
        prompt = model.prompt(task, demonstrations, query)
        expect(isinstance(prompt, Prompt), f"`prompt` must return a Prompt, not {type(prompt).__name__}")
        examples_with_images = (query,) if _one_image(model) else (*demonstrations, query)
        images = tuple(e.image for e in examples_with_images if e.image)
        expect(
            prompt.images == images,
            f"a prompt of {shots} demonstrations has {len(images)} images, in order; not {prompt.images}",
        )
        expect(
            query.label in prompt.target, f"the target {prompt.target!r} must hold the query's label {query.label!r}"
        )
        place = 0
        for example in demonstrations:
            place = prompt.text.find(example.label, place) + len(example.label)
            expect(
                place >= len(example.label), f"the label {example.label!r} is missing in the prompt, or out of order"
            )
        if demonstrations and examples[0].image and not _one_image(model):
            images = (*_pair(examples).images, *images[1:])
            actual = model.prompt(task, [_pair(examples), *demonstrations[1:]], query).images
            expect(actual == images, f"each example has all its images in the prompt, in order: {images}, not {actual}")
        other = model.prompt(task, demonstrations, replace(query, label=examples[-1].label))
        expect(other.text == prompt.text, "the query's label changes the prompt's text, so it leaks into it")
        expect(other.target != prompt.target, "the query's label does not change the target")
    expect_error(
        ConfigError,
        lambda: model.prompt("no-such-task", [], query),
        "a task that the format does not know is a ConfigError",
    )


def _check_clean(model: Model, examples: Sequence[Example], task: str) -> None:
    """A run-on answer is a prompt's text from the first demonstration's label on, without special tokens."""
    first, second, third = examples[:3]
    text = model.prompt(task, [first, second], third).text
    run_on = re.sub(r"<[^<>\s]*>", "", text[text.index(first.label) :])
    answer = model.clean(task, run_on)
    expect(
        answer == first.label,
        f"`clean` must cut {run_on!r} where the next example begins: {first.label!r}, not {answer!r}",
    )
    for raw in (run_on, f"  {first.label} \n", "", "\n\n", f'"{first.label}"', first.label.upper()):
        once = model.clean(task, raw)
        expect(once == once.strip(), f"`clean` must strip its answer: {once!r}")
        expect(model.clean(task, once) == once, f"`clean` must leave a clean answer alone: {once!r}")


def _check_scores(
    model: Model, alone: PromptsAlone, examples: Sequence[Example], task: str, batch_size: int, tolerance: float
) -> None:
    prompts = mixed_prompts(model, examples, task)
    single = alone.scores(prompts)
    for size in (1, batch_size, len(prompts)):
        _compare(_scored(model, prompts, size), single, f"in batches of {size}, prompts of mixed lengths", tolerance)
    order = np.random.default_rng(2).permutation(len(prompts)).tolist()
    shuffled = _scored(model, [prompts[i] for i in order], batch_size)
    _compare(shuffled, [single[i] for i in order], "in another order, prompts", tolerance)
    expect(model.score([], batch_size) == [], "`score` of no prompts is an empty list")
    for prompt, actual in zip(prompts, single, strict=True):
        same = [s.tokens for p, s in zip(prompts, single, strict=True) if p.target == prompt.target]
        expect(set(same) == {actual.tokens}, f"one target has {sorted(set(same))} tokens, depending on its prompt")
    if any(p.images for p in prompts):
        _check_image_seen(model, alone, examples, task, tolerance)
    if any(len(p.images) > 1 for p in prompts):
        _check_image_order(alone, prompts, tolerance)
    if hasattr(model, "padding_side"):
        side, model.padding_side = model.padding_side, {"left": "right", "right": "left"}[model.padding_side]
        turned = _scored(model, prompts, len(prompts))
        model.padding_side = side
        _compare(turned, single, f"padded on the other side than the {side}, prompts", tolerance)


def _check_image_seen(
    model: Model, alone: PromptsAlone, examples: Sequence[Example], task: str, tolerance: float
) -> None:
    prompt = model.prompt(task, [], examples[0])
    others = [replace(prompt, images=(e.image,)) for e in examples[1:5] if e.image]
    first, *rest = alone.log_probs([prompt, *others])
    apart = [abs(log_prob - first) for log_prob in rest]
    expect(max(apart) > tolerance, "another image makes no difference to a prompt's score: is it read at all?")


def _check_image_order(alone: PromptsAlone, prompts: list[Prompt], tolerance: float) -> None:
    several = [p for p in prompts if len(p.images) > 1]
    turned = [replace(p, images=p.images[1:] + p.images[:1]) for p in several]
    apart = [abs(a - b) for a, b in zip(alone.log_probs(turned), alone.log_probs(several), strict=True)]
    expect(
        max(apart) > tolerance, "the order of a prompt's images makes no difference to its score: are they read at all?"
    )


def _one_image(model: Model) -> bool:
    return getattr(model, "images_per_prompt", None) == 1


def _check_parts(model: Model, alone: PromptsAlone, examples: Sequence[Example], task: str, tolerance: float) -> None:
    """log P(ab | text) = log P(a | text) + log P(b | text a), split at a blank, where tokenizers do not merge. An encoder
    cannot read the beginning of a target: of an encoder-decoder only P(a | text) >= P(ab | text) is known."""
    target_apart = bool(getattr(model, "target_apart", False))
    for shots in (0, 2):
        prompt = model.prompt(task, examples[1 : 1 + shots], examples[0])
        cut = prompt.target.index(" ", prompt.target.index(examples[0].label))
        start, rest = prompt.target[:cut], prompt.target[cut:]
        parts = [replace(prompt, target=start), replace(prompt, text=prompt.text + start, target=rest)]
        sentence = f"the target {prompt.target!r} after {shots} demonstrations"
        whole, one, two = alone.scores([prompt, *parts])
        if target_apart:
            expect(one.tokens < whole.tokens, f"{sentence} has no more tokens than its part {start!r}")
            expect(one.log_prob >= whole.log_prob - tolerance, f"{sentence} is more probable than its part {start!r}")
        else:
            expect(
                whole.tokens == one.tokens + two.tokens,
                f"{sentence} has {whole.tokens} tokens, its parts {start!r} and {rest!r} {one.tokens} and {two.tokens}: "
                "a token of the prompt is counted, or one of the target is missed",
            )
            summed = one.log_prob + two.log_prob
            expect_equal(summed, whole.log_prob, f"{sentence}: its parts do not add up", tolerance)
        words = dict.fromkeys(e.label.rsplit(" ", 1)[1] for e in examples)
        ends = alone.log_probs([replace(prompt, target=f"{start} {word}") for word in words])
        expect(len(set(ends)) > 1, "the last word of a target makes no difference to its score")


def _check_bad_prompts(model: Model, examples: Sequence[Example], task: str) -> None:
    prompt = model.prompt(task, [], examples[0])
    expect_error(
        ValueError, lambda: model.score([replace(prompt, target="")], 1), "scoring an empty target is a ValueError"
    )
    empty = Prompt("", (), prompt.target)
    expect_error(ValueError, lambda: model.score([empty], 1), "scoring after an empty text is a ValueError")
    if not prompt.images:
        return
    missing = replace(prompt, images=("/no/such/image.png",))
    error = expect_error(IclError, lambda: model.score([missing], 1), "a missing image is an IclError")
    expect("image.png" in error.message, f"the error must name the image: {error.message!r}")


def _check_generation(model: Model, alone: PromptsAlone, prompts: Sequence[Prompt], batch_size: int) -> None:
    for options in _OPTIONS:
        name = f"`generate` with {options.num_beams} beams"
        single = alone.answers(prompts, options)
        expect(all(isinstance(text, str) for text in single), f"{name} must return strings")
        for size in (batch_size, len(prompts)):
            batch = model.generate(prompts, options, size)
            expect(batch == single, f"{name} depends on the batch size: {batch} against {single}")
        without = model.generate([replace(p, target="") for p in prompts], options, batch_size)
        expect(without == single, f"{name} depends on the target, which it must not see")
    expect(model.generate([], _OPTIONS[0], batch_size) == [], "`generate` of no prompts is an empty list")


def _check_features(
    model: Any, alone: PromptsAlone, prompts: Sequence[Prompt], batch_size: int, tolerance: float
) -> None:
    paths = list(dict.fromkeys(path for prompt in prompts for path in prompt.images))
    direct = _scored(model, prompts, batch_size)
    answers = alone.answers(prompts, _OPTIONS[1])
    for size in (1, batch_size):
        actual = model.image_features(paths, size)
        expect(len(actual) == len(paths), f"`image_features` of {len(paths)} paths gives {len(actual)} tensors")
        features = dict(zip(paths, actual, strict=True))
        _compare(_scored(model, prompts, batch_size, features), direct, "with image features, prompts", tolerance)
        cached = model.generate(prompts, _OPTIONS[1], batch_size, features)
        expect(cached == answers, f"answers from image features differ: {cached} against {answers}")


def _check_twin(
    model: Model,
    alone: PromptsAlone,
    prompts: Sequence[Prompt],
    batch_size: int,
    tolerance: float,
    twin: PlainTwin,
) -> None:
    """Answers of prompts alone are those of batches, as `_check_generation` has seen."""
    plain = [TargetScore(*twin.log_prob(prompt)) for prompt in prompts]
    _compare(_scored(model, prompts, batch_size), plain, "against plain full forward passes, prompts", tolerance)
    some = prompts[:3]
    for options in _OPTIONS:
        answers, expected = alone.answers(some, options), [twin.answer(p, options) for p in some]
        name = f"`generate` with {options.num_beams} beams"
        expect(answers == expected, f"{name} gives {answers}, plain full forward passes {expected}")


def _scored(model: Model, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
    scores = model.score(prompts, batch_size, features) if features is not None else model.score(prompts, batch_size)
    return valid_scores(scores, len(prompts))


def _compare(actual: list[TargetScore], expected: list[TargetScore], what: str, tolerance: float) -> None:
    expect_equal([s.tokens for s in actual], [s.tokens for s in expected], f"{what} have other token counts")
    expect_equal(
        [s.log_prob for s in actual], [s.log_prob for s in expected], f"{what} have other log-probabilities", tolerance
    )
