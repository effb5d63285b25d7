"""The adapter against open_flamingo's own model: one unpadded prompt at a time, every token computed, nothing cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from icltool_openflamingo.model import OpenFlamingoOptions

from icltool import ConfigError, Example, GenerationOptions, Prompt
from icltool.testing import check_model, make_examples
from icltool.testing.images import check_prepared_images

if TYPE_CHECKING:
    from tiny_flamingo import Tiny


def log_probs_of(tiny: Tiny, prompt: Prompt, rows: list[list[int]]) -> torch.Tensor:
    """Float64 [rows, T, vocabulary], by a full forward over token ids of one length."""
    from tiny_flamingo import pixels_of

    tokens = torch.tensor(rows)
    pixels = pixels_of(prompt.images) if prompt.images else torch.zeros(1, 1, 1, 3, 32, 32)
    with torch.no_grad():
        logits = tiny.reference(
            pixels.expand(len(rows), -1, -1, -1, -1, -1), tokens, attention_mask=torch.ones_like(tokens)
        ).logits
    return torch.log_softmax(logits.double(), -1)


def plain_score(tiny: Tiny, prompt: Prompt) -> tuple[float, int]:
    tokenizer = tiny.loaded.tokenizer
    full = tokenizer(prompt.text + prompt.target, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
    log_probs = log_probs_of(tiny, prompt, [full])[0]
    return sum(log_probs[k - 1, full[k]].item() for k in range(start, len(full))), len(full) - start


def plain_beam_search(tiny: Tiny, prompt: Prompt, beams: int, length: int) -> list[int]:
    """The best of all finished hypotheses by summed log-probability (length penalty 0)."""
    tokenizer = tiny.loaded.tokenizer
    ids = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    ends = {tokenizer.convert_tokens_to_ids("<|endofchunk|>"), tokenizer.eos_token_id}
    image = tokenizer.convert_tokens_to_ids("<image>")
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for step in range(length):
        log_probs = log_probs_of(tiny, prompt, [ids + answer for _, answer in running])[:, -1]
        log_probs[:, image] = -torch.inf
        extended = [
            (score + value, [*answer, token])
            for (score, answer), row in zip(running, log_probs.tolist(), strict=True)
            for token, value in enumerate(row)
        ]
        extended.sort(key=lambda hypothesis: -hypothesis[0])
        last = step == length - 1
        finished += [h for h in extended[:beams] if h[1][-1] in ends or last]
        running = [h for h in extended if h[1][-1] not in ends][:beams]
        if len(finished) >= beams and sorted(f[0] for f in finished)[-beams] >= running[0][0]:
            break
    return max(finished)[1]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return make_examples(tmp_path_factory.mktemp("images"), 10)


def prompts_of(tiny: Tiny, examples: list[Example]) -> list[Prompt]:
    """Of 0 to 4 demonstrations, with one image missing, with text before the first image, and without any image."""
    several = [tiny.loaded.prompt("caption", examples[1 : 1 + k], examples[0]) for k in (2, 0, 4, 1)]
    blind = [replace(e, image="") for e in examples[:3]]
    several.append(tiny.loaded.prompt("caption", [examples[3], blind[1]], examples[5]))
    several.append(tiny.loaded.prompt("caption", [examples[3]], blind[2]))
    several.append(replace(several[0], text="what is it " + several[0].text))
    several.append(tiny.loaded.prompt("classification", blind[:2], blind[2]))
    return several


def test_it_conforms(tiny: Tiny, tmp_path: Path) -> None:
    task = "vqa" if tiny.kind == "mpt" else "caption"
    examples = make_examples(tmp_path, 10, task=task)
    check_model(tiny.loaded, examples, task=task)
    check_prepared_images(tiny.loaded, examples)


def test_it_conforms_with_the_prompts_of_live(tiny_mpt: Tiny, tmp_path: Path) -> None:
    from tiny_flamingo import load

    live = load(tiny_mpt.kind, tiny_mpt.folder, template="live")
    check_model(live, make_examples(tmp_path, 10, task="vqa"), task="vqa")
    named = load(tiny_mpt.kind, tiny_mpt.folder, template="lever-lm")
    assert named.fingerprint() == tiny_mpt.loaded.fingerprint() != live.fingerprint()


def test_an_unknown_template_is_refused_before_anything_is_loaded() -> None:
    from icltool_openflamingo.model import OpenFlamingoModel

    with pytest.raises(ConfigError, match="unknown prompt template 'flamingo'"):
        OpenFlamingoModel(OpenFlamingoOptions(path="no/such/folder", template="flamingo"))


def test_scores_equal_a_plain_full_forward(tiny: Tiny, examples: list[Example]) -> None:
    prompts = prompts_of(tiny, examples)
    paths = [e.image for e in examples]
    features = dict(zip(paths, tiny.loaded.image_features(paths, 4), strict=True))
    expected = [plain_score(tiny, prompt) for prompt in prompts]
    for batch_size in (1, 3, len(prompts)):
        for cached in (None, features):
            for actual, (log_prob, tokens) in zip(
                tiny.loaded.score(prompts, batch_size, cached), expected, strict=True
            ):
                assert actual.tokens == tokens
                assert actual.log_prob == pytest.approx(log_prob, abs=5e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_equals_a_plain_beam_search(tiny: Tiny, examples: list[Example], beams: int) -> None:
    prompts = [prompts_of(tiny, examples)[i] for i in (0, 1, 4, 5, 6, 7)]
    answers = [plain_beam_search(tiny, prompt, beams, 6) for prompt in prompts]
    texts = [tiny.loaded.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
    options = GenerationOptions(max_new_tokens=6, num_beams=beams)
    for batch_size in (1, 3, len(prompts)):
        assert tiny.loaded.generate(prompts, options, batch_size) == texts
    paths = [e.image for e in examples]
    features = dict(zip(paths, tiny.loaded.image_features(paths, 4), strict=True))
    assert tiny.loaded.generate(prompts, options, 3, features) == texts


def test_the_last_image_matters_to_every_new_token(tiny: Tiny, examples: list[Example]) -> None:
    """Of the twin: else a model that lost its image after the first token would pass the tests above."""
    prompt = tiny.loaded.prompt("caption", examples[1:3], examples[0])
    answer = plain_beam_search(tiny, prompt, 1, 6)
    ids = tiny.loaded.tokenizer(prompt.text, add_special_tokens=False)["input_ids"] + answer
    other = replace(prompt, images=(*prompt.images[:-1], examples[7].image))
    ours, others = (log_probs_of(tiny, p, [ids])[0, -len(answer) :] for p in (prompt, other))
    assert (ours - others).abs().amax(1).min() > 0.03


def test_scoring_and_generation_leave_nothing_behind(tiny: Tiny, examples: list[Example]) -> None:
    prompts = prompts_of(tiny, examples)
    before = tiny.loaded.score(prompts[:2], 2)
    tiny.loaded.generate(prompts[2:4], GenerationOptions(4, 3), 2)
    assert not tiny.loaded.model.lang_encoder.is_conditioned()
    assert tiny.loaded.score(prompts[:2], 2) == before


def test_too_long_a_prompt_is_refused(tiny: Tiny, examples: list[Example]) -> None:
    from icltool import DataError

    prompt = tiny.loaded.prompt("caption", examples * 5, examples[0])
    with pytest.raises(DataError, match="the model reads at most 256"):
        tiny.loaded.score([prompt], 1)
    with pytest.raises(DataError, match="the model reads at most 250"):
        tiny.loaded.generate([prompt], GenerationOptions(6, 1), 1)
