"""The idefics adapter against plain full forwards written out by hand, with and without a resampler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.idefics.idefics_prefix_cache import whole_vocabulary
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.contracts import Example, GenerationOptions, Prompt, ScoringRequest
from icltool.engine.opening import open_session
from icltool.errors import ConfigError, DataError
from icltool.testing.hooks import check_hooks
from icltool.testing.models import mixed_prompts
from tests.conftest import Scenery


@pytest.fixture(params=["tiny_model", "resampled"])
def model(request: pytest.FixtureRequest) -> IdeficsModel:
    return request.getfixturevalue(request.param)


def plain_inputs(model: IdeficsModel, prompt: Prompt, text: str) -> dict[str, torch.Tensor]:
    """One prompt, unpadded; the image mask written out token by token."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    marker = model.tokenizer.convert_tokens_to_ids("<image>")
    mask, current = [], -1
    for token in ids:
        current += token == marker
        mask.append([int(i == current) for i in range(len(prompt.images))])
    images = [Image.open(p).convert("RGB") for p in prompt.images]
    pixels = model.image_processor(images, return_tensors="pt")
    pixels = pixels if isinstance(pixels, torch.Tensor) else pixels["pixel_values"]
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "image_attention_mask": torch.tensor([mask]),
        "pixel_values": pixels[None],
    }


def plain_log_prob(model: IdeficsModel, prompt: Prompt) -> tuple[float, int]:
    """The twin: a full forward with all logits, summed over the target's tokens one after the other."""
    full = model.tokenizer(prompt.text + prompt.target, add_special_tokens=False)["input_ids"]
    start = len(model.tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logits = model.model(**plain_inputs(model, prompt, prompt.text + prompt.target)).logits[0].double()
    total = sum(torch.log_softmax(logits[k - 1], -1)[full[k]].item() for k in range(start, len(full)))
    return total, len(full) - start


def prompts_of(model: IdeficsModel, scenery: Scenery, task: str) -> list[Prompt]:
    question = "what colour?" if task == "vqa" else ""
    examples = scenery.mixed(9, seed=4, question=question)
    return [model.prompt(task, examples[1 : 1 + k], examples[0]) for k in (0, 1, 2, 4, 8)]


@pytest.mark.parametrize("task", ["caption", "vqa"])
def test_scores_equal_a_plain_full_forward(model: IdeficsModel, scenery: Scenery, task: str) -> None:
    prompts = prompts_of(model, scenery, task)
    paths = list({path for p in prompts for path in p.images})
    features = dict(zip(paths, model.image_features(paths, 4), strict=True))
    expected = [plain_log_prob(model, p) for p in prompts]
    for batch_size in (1, 2, 5):
        for cached_features in (None, features):
            for score, (log_prob, tokens) in zip(
                model.score(prompts, batch_size, cached_features), expected, strict=True
            ):
                assert score.tokens == tokens
                assert score.log_prob == pytest.approx(log_prob, abs=2e-5)
                assert abs(np.exp(score.mean) - np.exp(log_prob / tokens)) < 1e-5


#: Log-probabilities in nats of the targets after no, one and two demonstrations, and answers of three beams.
RECORDED = ((-38.164036, -39.433957, -39.199079), ("##uuuu provide", "##uu - ] ] ]", "] ] ]$uu"))


def test_scores_and_answers_are_the_same_under_every_release(resampled: IdeficsModel, tmp_path: Path) -> None:
    rng, examples = np.random.default_rng(8), []
    for k, label in enumerate(("a dax blick", "a wug toma", "a fep blick")):
        path = tmp_path / f"{k}.png"  # of the model's own size: neither decoding nor resizing changes a pixel
        Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(path)
        examples.append(Example(k, str(path), k, label, label, (label,)))
    prompts = [resampled.prompt("caption", examples[1 : 1 + k], examples[0]) for k in (0, 1, 2)]
    with open_session("caption", resampled, GenerationOptions(6, 3), 2, 2**20) as session:
        requests = [ScoringRequest(examples[0], tuple(examples[1 : 1 + k])) for k in (0, 1, 2)]
        actual, answers = session.target_scores(requests), session.answers(requests)
    for scores in (actual, resampled.score(prompts, 1)):
        assert [score.log_prob for score in scores] == pytest.approx(RECORDED[0], rel=1e-5)
    assert tuple(answers) == RECORDED[1]


@pytest.mark.parametrize("beams", [1, 3])
def test_generations_equal_those_of_single_prompts(model: IdeficsModel, scenery: Scenery, beams: int) -> None:
    prompts = prompts_of(model, scenery, "caption")
    options = GenerationOptions(6, beams)
    alone = []
    for prompt in prompts:
        inputs = plain_inputs(model, prompt, prompt.text)
        with whole_vocabulary(model.model.config):
            output = model.model.generate(
                **inputs, max_new_tokens=6, num_beams=beams, length_penalty=0.0, do_sample=False,
                suppress_tokens=model._markers, pad_token_id=0, eos_token_id=2,
            )  # fmt: skip
        alone.append(model.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    assert model.generate(prompts, options, 1) == alone
    assert model.generate(prompts, options, 4) == alone
    paths = list({path for p in prompts for path in p.images})
    features = dict(zip(paths, model.image_features(paths, 3), strict=True))
    assert model.generate(prompts, options, 5, features) == alone


def test_the_order_of_images_matters(model: IdeficsModel, scenery: Scenery) -> None:
    a, b, query = scenery.example(0, 0), scenery.example(3, 4), scenery.example(0, 4)
    prompt = model.prompt("caption", [a, b], query)
    swapped = replace(prompt, images=(b.image, a.image, query.image))
    first, second = model.score([prompt, swapped], 2)
    assert abs(first.log_prob - second.log_prob) > 1e-3


def test_a_prompt_needs_text_and_target(tiny_model: IdeficsModel, scenery: Scenery) -> None:
    prompt = tiny_model.prompt("caption", [], scenery.example(1, 1))
    with pytest.raises(ValueError, match="target"):
        tiny_model.score([replace(prompt, target="")], 1)


def test_damaged_and_missing_images_are_named(tiny_model: IdeficsModel, scenery: Scenery, tmp_path: Path) -> None:
    good = scenery.example(1, 1)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(Path(good.image).read_bytes()[:400])
    for path, words in ((cut, "cannot be read"), (tmp_path / "none.jpg", "does not exist")):
        with pytest.raises(DataError, match=words) as caught:
            tiny_model.score([tiny_model.prompt("caption", [], replace(good, image=str(path)))], 1)
        assert str(path) in caught.value.message


def test_missing_weights_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    with pytest.raises(ConfigError, match="idefics-9b are not on this machine") as caught:
        IdeficsModel(IdeficsOptions(name="idefics-9b", hub_id="HuggingFaceM4/idefics-9b"))
    assert "--model-path" in str(caught.value.hint)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        IdeficsModel(IdeficsOptions(name="mine", path=str(tmp_path)))
    with pytest.raises(ConfigError, match="neither a folder nor a hub id"):
        IdeficsModel(IdeficsOptions(name="mine", path=str(tmp_path / "no" / "such" / "folder")))


def test_weights_are_found_in_the_checkpoint_folder_of_the_environment(
    resampled: IdeficsModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "idefics-9b").symlink_to(resampled.source)
    monkeypatch.setenv("MODEL_CPK_DIR", str(tmp_path))
    actual = IdeficsModel(IdeficsOptions(name="idefics-9b", hub_id="HuggingFaceM4/idefics-9b", device="cpu"))
    assert actual.model.config.use_resampler


def test_the_fingerprint_tells_weights_and_precision_apart(resampled: IdeficsModel, tiny_model: IdeficsModel) -> None:
    half = IdeficsModel(IdeficsOptions(name="half", path=resampled.source, device="cpu", dtype="bfloat16"))
    assert len({resampled.fingerprint(), tiny_model.fingerprint(), half.fingerprint()}) == 3


def test_prompts_without_images_are_read_too(model: IdeficsModel, scenery: Scenery) -> None:
    demonstration = scenery.example(1, 2)
    plain = [replace(e, image="") for e in scenery.mixed(3, seed=5)]
    texts = [model.prompt("classification", plain[:k], plain[2]) for k in (2, 0)]
    prompts = [*texts, model.prompt("classification", [plain[0]], demonstration)]
    alone = [model.score([p], 1)[0].log_prob for p in prompts]
    for cached_features in (
        None,
        dict(zip([demonstration.image], model.image_features([demonstration.image], 1), strict=True)),
    ):
        assert [s.log_prob for s in model.score(prompts, 3, cached_features)] == pytest.approx(alone, abs=2e-5)
        assert [s.log_prob for s in model.score(texts, 2, cached_features)] == pytest.approx(alone[:2], abs=2e-5)
    answers = [model.generate([p], GenerationOptions(4, 3), 1)[0] for p in prompts]
    assert model.generate(prompts, GenerationOptions(4, 3), 3) == answers


def test_hooks_into_the_decoder_conform(model: IdeficsModel, scenery: Scenery) -> None:
    prompts = mixed_prompts(model, scenery.mixed(8, seed=9), "caption")[1:4]
    paths = list(dict.fromkeys(path for prompt in prompts for path in prompt.images))
    check_hooks(model, prompts, dict(zip(paths, model.image_features(paths, 8), strict=True)), 1e-4)
