"""Beam search against the expected beams, a plain search, and transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from icltool_ofa.beam import Beams, beam_search
from icltool_ofa.network import OFAForConditionalGeneration
from tiny_ofa import RECORD, build
from torch import Tensor

SETTINGS = {
    "beam1_maxlen8_norepeat0": {"num_beams": 1, "max_length": 8, "no_repeat_ngram_size": 0},
    "beam3_maxlen8_norepeat3": {"num_beams": 3, "max_length": 8, "no_repeat_ngram_size": 3},
    "beam5_maxlen12_norepeat2": {"num_beams": 5, "max_length": 12, "no_repeat_ngram_size": 2},
    "beam5_maxlen12_norepeat3": {"num_beams": 5, "max_length": 12, "no_repeat_ngram_size": 3},
}
EOS, PAD = 2, 1


def readable(beams: Beams) -> list[list[tuple[list[int], float]]]:
    return [
        [([t for t in tokens if t != PAD], score) for tokens, score in zip(row, scores, strict=True)]
        for row, scores in zip(beams.tokens.tolist(), beams.scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_beams_are_as_expected(
    tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor], name: str, use_cache: bool
) -> None:
    settings = SETTINGS[name]
    actual = readable(beam_search(tiny, **prompt, **settings, num_return=settings["num_beams"], use_cache=use_cache))
    for row, expected in zip(actual, RECORD["beams"][name], strict=True):
        assert [tokens for tokens, _ in row] == [beam["tokens"] for beam in expected]
        assert [score for _, score in row] == pytest.approx([beam["score"] for beam in expected], abs=1e-5)


def plain_search(
    network: OFAForConditionalGeneration, inputs: dict[str, Tensor], beams: int, longest: int, ngram: int
) -> list[tuple[list[int], float]]:
    """fairseq's search for one row: `beams` hypotheses that ended, the best first; no cache, no batch."""
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float]] = []
    while len(ended) < beams:
        candidates = []
        for tokens, total in alive:
            out = network(**inputs, decoder_input_ids=torch.tensor([[0, *tokens]]))
            step = out.logits[0, -1].log_softmax(-1).tolist()
            for token, log_probability in enumerate(step):
                if token == PAD or (token == EOS and not tokens) or (token != EOS and len(tokens) == longest):
                    continue
                extended = [0, *tokens, token]
                grams = [extended[i : i + ngram] for i in range(len(extended) - ngram + 1)]
                if ngram and grams and grams[-1] in grams[:-1]:
                    continue
                candidates.append(([*tokens, token], total + log_probability))
        candidates.sort(key=lambda candidate: -candidate[1])
        candidates = candidates[: 2 * beams]
        for tokens, total in candidates[:beams]:
            if tokens[-1] == EOS and len(ended) < beams:
                ended.append((tokens, total / len(tokens)))
        alive = [candidate for candidate in candidates if candidate[0][-1] != EOS][:beams]
    return sorted(ended, key=lambda beam: -beam[1])


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
def test_where_texts_end_early_the_best_is_that_of_a_plain_search(prompt: dict[str, Tensor], seed: int) -> None:
    network = build(seed)
    network.encoder.embed_tokens.weight[EOS] *= 4
    actual = readable(beam_search(network, **prompt, num_beams=3, max_length=6, no_repeat_ngram_size=2, num_return=3))
    lengths = set()
    for row, beams in enumerate(actual):
        inputs = {name: tensor[row : row + 1] for name, tensor in prompt.items()}
        expected = plain_search(network, inputs, 3, 6, 2)
        assert beams[0][0] == expected[0][0]
        assert beams[0][1] == pytest.approx(expected[0][1], abs=1e-5)
        # What else is there is at least as good as what fairseq keeps.
        assert all(ours[1] >= theirs[1] - 1e-5 for ours, theirs in zip(beams, expected, strict=True))
        lengths |= {len(tokens) for tokens, _ in beams}
    assert min(lengths) < 7


def test_plain_generate_has_the_same_tokens_and_leaves_the_forced_end_out_of_the_score(
    tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]
) -> None:
    options: dict[str, Any] = {"num_beams": 5, "num_return_sequences": 5, "no_repeat_ngram_size": 3}
    options |= {"early_stopping": True, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    forced = tiny.generate(**prompt, **options, max_new_tokens=13, forced_eos_token_id=EOS)
    expected = RECORD["beams"]["beam5_maxlen12_norepeat3"]
    assert forced.sequences[:, 1:].tolist()[0] == expected[0][0]["tokens"]
    ours = beam_search(tiny, **prompt, max_length=12, num_return=5)
    assert (forced.sequences_scores.view(2, 5) > ours.scores + 0.1).all()


def test_the_checkpoint_s_own_generation_settings_do_not_interfere(prompt: dict[str, Tensor]) -> None:
    network = build()
    expected = readable(beam_search(network, **prompt, num_beams=3, max_length=4, num_return=3))
    network.generation_config.update(
        forced_eos_token_id=EOS, repetition_penalty=3.0, no_repeat_ngram_size=1, max_length=3
    )
    assert readable(beam_search(network, **prompt, num_beams=3, max_length=4, num_return=3)) == expected


def test_a_row_does_not_depend_on_the_others(tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> None:
    together = readable(beam_search(tiny, **prompt, num_beams=3, max_length=5, num_return=2))
    alone = {"input_ids": prompt["input_ids"][1:, :5], "patch_images": prompt["patch_images"][1:]}
    (actual,) = readable(beam_search(tiny, **alone, num_beams=3, max_length=5, num_return=2))
    assert [tokens for tokens, _ in actual] == [tokens for tokens, _ in together[1]]
    assert [score for _, score in actual] == pytest.approx([score for _, score in together[1]], abs=1e-5)


def test_texts_need_no_image_and_have_a_least_length(
    tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]
) -> None:
    beams = beam_search(tiny, prompt["input_ids"], num_beams=2, max_length=6, min_length=5)
    assert all(len(tokens) >= 6 for ((tokens, _),) in readable(beams))


@torch.no_grad()
def test_an_encoded_batch_can_be_searched_twice(tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> None:
    encoded = tiny.get_encoder()(**prompt)
    expected = readable(beam_search(tiny, **prompt, max_length=5, num_return=2))
    for _ in range(2):
        assert readable(beam_search(tiny, encoder_outputs=encoded, max_length=5, num_return=2)) == expected
