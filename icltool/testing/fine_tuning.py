"""The conformance suite of models whose own weights can be trained."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from icltool.contracts import (
    AnswerBatch,
    Augmentation,
    Example,
    GenerationOptions,
    Model,
    Prompt,
    SupportsFineTuning,
    keyed_generator,
)
from icltool.contracts.fine_tuning import TunableModel
from icltool.errors import ConfigError, IclError
from icltool.testing.expectations import expect, expect_equal, expect_error

if TYPE_CHECKING:
    from torch import Tensor

_BEAMS = GenerationOptions(max_new_tokens=6, num_beams=3, length_penalty=1.0)
_GREEDY = GenerationOptions(max_new_tokens=6, num_beams=1)
#: A pixel reader goes to every worker process; with weights in it it would be larger.
_MOST_BYTES = 2**20
_AUGMENTATIONS = (
    Augmentation("resized", (0.5, 1.0), flip=True),
    Augmentation("random", shorter=48),
    Augmentation("none", flip=True),
)


def check_fine_tuning(
    model: Model,
    examples: Sequence[Example],
    folder: Path,
    reload: Callable[[Path], Model],
    *,
    task: str = "caption",
    tolerance: float = 1e-4,
) -> None:
    """Checks an LVLM adapter against `icltool.SupportsFineTuning`; raises AssertionError with a description of the fault. The
    model's weights are changed, and restored.

    `examples` are at least six, with different images and labels of two or more words that the model's tokenizer knows.
    `reload` loads the adapter from a file or folder that it wrote into `folder`, as `--model-path` does. `tolerance` is in
    nats: 1e-4 suits float32.

    Checks that `network` has the parameters named by `fine_tuning_parts` and `layer_ids`; `pixel_reader` (it reads the same
    after pickling; equal draws give equal pixels, different draws different ones; without a generator it reads as in
    evaluation; a missing image is an IclError); `fine_tuning_batch` and `answer_logits` (log-probabilities sum up to those of
    `Model.score`; a batch equals single prompts; targets are cut; ids in place of targets give the same logits; so do prompts
    that share an image by `images`; gradients reach the network); `plain_prompt`; `sample_beams` (the best is the answer of
    `Model.generate`; beams are ordered; scores are the sums of `answer_logits` over the length; the network's modes are
    unchanged; results do not depend on the batch); that `resize_images` to the present size changes nothing and to an
    impossible size is a ConfigError; that a gradient step changes scores; and that `save_fine_tuned` and `export` can be read
    again with the same scores.
    """
    expect(
        isinstance(model, SupportsFineTuning), f"{type(model).__name__} lacks a part of `icltool.SupportsFineTuning`"
    )
    expect(len(examples) >= 6, "give six examples")
    tunable = cast(TunableModel, model)
    _check_parts(tunable)
    _check_reader(tunable, examples)
    _check_logits(tunable, examples, task, tolerance)
    _check_plain_prompt(tunable, examples, tolerance)
    for options in (_BEAMS, _GREEDY):
        _check_beams(tunable, examples, task, options, tolerance)
    _check_sizes(tunable, examples, task)
    _check_files(tunable, examples, task, folder, reload, tolerance)


def zero_shot(model: TunableModel, examples: Sequence[Example], task: str) -> list[Prompt]:
    """Prompts of one image each."""
    return [model.prompt(task, [], example) for example in examples]


def evaluation_pixels(model: TunableModel, prompts: Sequence[Prompt]) -> Tensor:
    """float32 [B, 3, H, W] on the model's device."""
    import torch

    read = model.pixel_reader(Augmentation())
    arrays = np.stack([read(prompt.images[0]) for prompt in prompts])
    return torch.from_numpy(arrays).to(next(iter(model.network.parameters())).device)


def fine_tuned_log_probs(model: TunableModel, batch: AnswerBatch) -> tuple[list[float], Tensor]:
    """(each prompt's summed log-probability, the log-probabilities [N] of single tokens)."""
    import torch

    log_probs = torch.log_softmax(model.answer_logits(batch).float(), -1)
    picked = log_probs.gather(1, batch.tokens[:, None])[:, 0]
    sums = torch.zeros(len(batch.lasts), dtype=picked.dtype, device=picked.device)
    return sums.index_add(0, batch.rows, picked).tolist(), picked


def _check_parts(model: TunableModel) -> None:
    names = [name for name, _ in model.network.named_parameters()]
    for part, prefixes in model.fine_tuning_parts().items():
        for prefix in prefixes:
            actual = any(name.startswith(prefix.removeprefix("!")) for name in names)
            expect(actual, f"the part {part!r} names {prefix!r}, and no parameter begins so")
        expect(any(not p.startswith("!") for p in prefixes), f"the part {part!r} takes parameters out only")
    layers = model.layer_ids()
    for name in layers:
        expect(name in names, f"`layer_ids` names {name}, which is not a parameter of the network")
    ids = sorted(set(layers.values()))
    expect(ids == list(range(len(ids))), f"`layer_ids` must count from 0 without gaps, not {ids}")
    expect(isinstance(model.fine_tuning_recipe("caption"), (dict, object)), "`fine_tuning_recipe` must be a mapping")
    frozen = model.fine_tuning_recipe("caption").get("freeze", ())
    expect(isinstance(frozen, Sequence), f"`freeze` of `fine_tuning_recipe` must be names of parts, not {frozen!r}")
    for named in cast(Sequence[object], frozen):
        expect(
            named in model.fine_tuning_parts(),
            f"`fine_tuning_recipe` freezes {named!r}, which is not one of `fine_tuning_parts`",
        )


def _check_reader(model: TunableModel, examples: Sequence[Example]) -> None:
    paths = [e.image for e in examples]
    for augmentation in _AUGMENTATIONS:
        read = model.pixel_reader(augmentation)
        pickled = pickle.dumps(read)
        expect(len(pickled) < _MOST_BYTES, f"`pixel_reader` pickles to {len(pickled):,} bytes: does it hold weights?")
        again, plain = pickle.loads(pickled), model.pixel_reader(Augmentation())
        varied = []
        for path in paths:
            one = read(path, keyed_generator(0, "pixels", 1))
            expect(one.dtype == np.float32 and one.ndim == 3 and len(one) == 3, "pixels are float32 [3, H, W]")
            expect(one.shape == plain(path).shape, "augmented images have another size than those of evaluation")
            same = again(path, keyed_generator(0, "pixels", 1))
            expect_equal(same, one, f"`pixel_reader`, pickled and back, reads {path} differently")
            expect_equal(read(path), plain(path), f"{augmentation} changes {path} without a generator")
            others = [read(path, keyed_generator(k, "pixels", 1)) for k in range(8)]
            varied.append(any(not np.array_equal(one, other) for other in others))
            unflipped = [read(path, keyed_generator(k, "pixels", 1), flip=False) for k in range(8)]
            if augmentation.crop == "none":
                expect_equal(unflipped[0], plain(path), f"{path} is read without mirroring, and is not itself")
        expect(any(varied), f"other draws give the same pixels: {augmentation}")
    error = expect_error(IclError, lambda: read("/no/such/image.png"), "a missing image is an IclError")
    expect("image.png" in error.message, f"the error must name the image: {error.message!r}")


def _check_logits(model: TunableModel, examples: Sequence[Example], task: str, tolerance: float) -> None:
    prompts = zero_shot(model, examples, task)
    pixels = evaluation_pixels(model, prompts)
    expected = [s.log_prob for s in model.score(prompts, 2)]
    batch = model.fine_tuning_batch(prompts, pixels)
    actual, _ = fine_tuned_log_probs(model, batch)
    expect_equal(actual, expected, "`answer_logits` do not sum up to `Model.score`", tolerance)
    counts = [s.tokens for s in model.score(prompts, 2)]
    expect_equal(np.bincount(batch.rows.cpu().numpy()).tolist(), counts, "`fine_tuning_batch` has other token counts")
    alone = [
        fine_tuned_log_probs(model, model.fine_tuning_batch([p], pixels[i : i + 1]))[0][0]
        for i, p in enumerate(prompts)
    ]
    expect_equal(alone, actual, "a prompt alone has other logits than in a batch", tolerance)
    turned = fine_tuned_log_probs(model, model.fine_tuning_batch(prompts, pixels.flip(0)))[0]
    expect(max(abs(a - b) for a, b in zip(turned, actual, strict=True)) > tolerance, "the pixels make no difference")
    ids = [batch.tokens[batch.rows == row].tolist() for row in range(len(prompts))]
    untargeted = [replace(p, target="") for p in prompts]
    instead = fine_tuned_log_probs(model, model.fine_tuning_batch(untargeted, pixels, answers=ids))[0]
    expect_equal(instead, actual, "ids in place of targets give other logits than the targets", tolerance)
    rows = [1, 0, 1]
    shared_prompts, answers = [untargeted[row] for row in rows], [ids[row] for row in rows]
    shared = fine_tuned_log_probs(
        model, model.fine_tuning_batch(shared_prompts, pixels[:2], answers=answers, images=rows)
    )[0]
    repeated = [actual[row] for row in rows]
    expect_equal(shared, repeated, "`images` gives other logits than an image for each prompt", tolerance)
    cut = model.fine_tuning_batch(prompts, pixels, max_target_tokens=1)
    expect(cut.tokens.tolist() == [i[0] for i in ids], "`max_target_tokens=1` must leave each target its first token")
    model.network.requires_grad_(True)
    fine_tuned_log_probs(model, batch)[1].sum().backward()  # type: ignore[no-untyped-call]
    reached = [p for p in model.network.parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)]
    model.network.zero_grad(set_to_none=True)
    model.network.requires_grad_(False)
    expect(bool(reached), "no gradient reaches the network from `answer_logits`")


def _check_plain_prompt(model: TunableModel, examples: Sequence[Example], tolerance: float) -> None:
    image, word = examples[0].image, examples[0].label.split(" ")[0]
    prompts = [model.plain_prompt("what is it", image, target) for target in (word, examples[1].label)]
    for prompt, target in zip(prompts, (word, examples[1].label), strict=True):
        expect(isinstance(prompt, Prompt) and prompt.images == (image,), "`plain_prompt` must show its one image")
        expect("what is it" in prompt.text and target in prompt.target, "`plain_prompt` must hold text and target")
    actual, _ = fine_tuned_log_probs(model, model.fine_tuning_batch(prompts, evaluation_pixels(model, prompts)))
    expected = [s.log_prob for s in model.score(prompts, 2)]
    expect_equal(actual, expected, "prompts of `plain_prompt` have other logits than `Model.score`", tolerance)


def _check_beams(
    model: TunableModel, examples: Sequence[Example], task: str, options: GenerationOptions, tolerance: float
) -> None:
    prompts = zero_shot(model, examples, task)
    pixels = evaluation_pixels(model, prompts)
    some = list(model.network.modules())[::2]
    for module in some:
        module.training = True
    beams = model.sample_beams(prompts, pixels, options)
    modes_kept = all(m.training for m in some) and not any(m.training for m in list(model.network.modules())[1::2])
    model.network.eval()
    expect(modes_kept, "`sample_beams` changes which parts are in training mode")
    name = f"`sample_beams` with {options.num_beams} beams"
    expect(all(len(b) == options.num_beams for b in beams), f"{name} gives {[len(b) for b in beams]}")
    best, expected = [b[0].text for b in beams], model.generate(prompts, options, len(prompts))
    expect(best == expected, f"the best of {name} are {best}, `generate` gives {expected}")
    alone = [model.sample_beams([p], pixels[i : i + 1], options)[0] for i, p in enumerate(prompts)]
    expect(
        [[b.ids for b in part] for part in alone] == [[b.ids for b in part] for part in beams],
        f"{name} depends on the batch",
    )
    for prompt, image, part in zip(prompts, pixels, beams, strict=True):
        scores = [beam.score for beam in part]
        expect(scores == sorted(scores, reverse=True), f"{name} must be ordered, best first: {scores}")
        batch = model.fine_tuning_batch(
            [prompt] * len(part), image.expand(len(part), *image.shape), answers=[beam.ids for beam in part]
        )
        sums, _ = fine_tuned_log_probs(model, batch)
        length = options.length_penalty if options.num_beams > 1 else 0.0
        ranked = [s / len(beam.ids) ** length for s, beam in zip(sums, part, strict=True)]
        expect_equal(ranked, scores, f"the scores of {name} are not those of `answer_logits`", 10 * tolerance)


def _check_sizes(model: TunableModel, examples: Sequence[Example], task: str) -> None:
    prompts = zero_shot(model, examples[:2], task)
    before, size = model.score(prompts, 2), evaluation_pixels(model, prompts).shape[-1]
    model.resize_images(int(size))
    expect(model.score(prompts, 2) == before, "`resize_images` to the present size changes scores")
    expect_error(ConfigError, lambda: model.resize_images(1), "`resize_images` to one pixel is a ConfigError")


def _check_files(
    model: TunableModel,
    examples: Sequence[Example],
    task: str,
    folder: Path,
    reload: Callable[[Path], Model],
    tolerance: float,
) -> None:
    import torch

    prompts = zero_shot(model, examples, task)
    before = [s.log_prob for s in model.score(prompts, 2)]
    batch = model.fine_tuning_batch(prompts, evaluation_pixels(model, prompts))
    state = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    model.network.requires_grad_(True)
    fine_tuned_log_probs(model, batch)[1].mean().backward()  # type: ignore[no-untyped-call]
    trained = [name for name, p in model.network.named_parameters() if p.grad is not None]
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.grad is not None:
                parameter.add_(0.01 * parameter.grad.sign())
    model.network.zero_grad(set_to_none=True)
    model.network.requires_grad_(False)
    after = [s.log_prob for s in model.score(prompts, 2)]
    expect(max(abs(a - b) for a, b in zip(after, before, strict=True)) > tolerance, "trained weights change no score")
    file, whole = folder / "tuned.safetensors", folder / "whole"
    model.save_fine_tuned(file, trained, {"epochs": 1})
    model.export(whole)
    for path, name in ((file, "`save_fine_tuned`"), (whole, "`export`")):
        again = reload(path)
        actual = [s.log_prob for s in again.score(prompts, 2)]
        expect_equal(actual, after, f"what {name} wrote has other scores when it is read again", tolerance)
        expect(again.name == model.name, f"what {name} wrote is read as {again.name}")
        expect(again.fingerprint() != model.fingerprint(), f"what {name} wrote has the fingerprint of other weights")
    with torch.no_grad():
        for name, tensor in model.network.state_dict().items():
            tensor.copy_(state[name])
