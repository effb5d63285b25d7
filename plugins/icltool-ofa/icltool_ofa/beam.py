"""Beam search as OFA was published with, on top of transformers' `generate`.

The published search is fairseq's. transformers' agrees with it but for the end of the longest hypotheses: fairseq counts the
log-probability of the end-of-text token there, transformers' own way of forcing it counts none. `PublishedEnd` mends that. One
difference remains: if more hypotheses end in one step than are still needed, fairseq keeps those that ended earlier,
transformers the best of all. The best one is the same either way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from icltool_ofa.encoder import OFAEncoderOutput
from icltool_ofa.network import OFAForConditionalGeneration


@dataclass(frozen=True)
class Beams:
    """The hypotheses of a batch, the best first.

    Attributes
    ----------
    tokens : int64 [B, K, L]: no beginning-of-text token, the end-of-text token is there, then padding.
    scores : float32 [B, K]: the sum of the log-probabilities, end-of-text included, over (number of tokens) ** length_penalty.
    """

    tokens: Tensor
    scores: Tensor


class PublishedEnd(LogitsProcessor):
    """Only the end of the text may follow `length` tokens, at its own log-probability; padding may never be chosen."""

    def __init__(self, length: int, eos: int, pad: int) -> None:
        self.length, self.eos, self.pad = length, eos, pad

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] - 1 < self.length:
            barred = torch.zeros_like(scores, dtype=torch.bool)
            barred[:, self.pad] = True
        else:
            barred = torch.ones_like(scores, dtype=torch.bool)
            barred[:, self.eos] = False
        return scores.masked_fill(barred, -torch.inf)


@torch.no_grad()
def beam_search(
    network: OFAForConditionalGeneration,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    patch_images: Tensor | None = None,
    patch_masks: Tensor | None = None,
    *,
    encoder_outputs: OFAEncoderOutput | None = None,
    num_beams: int = 5,
    max_length: int = 16,
    min_length: int = 1,
    no_repeat_ngram_size: int = 3,
    length_penalty: float = 1.0,
    num_return: int = 1,
    use_cache: bool = True,
) -> Beams:
    """The `num_return` best texts for each row; the defaults are those of the published captions.

    Parameters
    ----------
    network : in evaluation mode, or dropout takes part.
    input_ids, attention_mask, patch_images, patch_masks : as `OFAForConditionalGeneration.forward` has them.
    encoder_outputs : what `network.get_encoder()` gave, in place of the four.
    num_beams : the width of the search; 1 is greedy.
    max_length, min_length : the number of tokens, the end-of-text token not counted.
    no_repeat_ngram_size : n-grams of this size occur once; 0 for no limit.
    num_return : K, at most `num_beams`.
    use_cache : keep keys and values of earlier tokens; the answer does not depend on it but by rounding.
    """
    config = network.config
    if encoder_outputs is None:
        encoder_outputs = network.get_encoder()(input_ids, attention_mask, patch_images, patch_masks)
    rows = len(encoder_outputs.last_hidden_state)
    settings = GenerationConfig(
        num_beams=num_beams,
        num_return_sequences=num_return,
        do_sample=False,
        # One more than can be used: what transformers does at its limit must not come into play.
        max_new_tokens=max_length + 2,
        min_new_tokens=min_length,
        no_repeat_ngram_size=no_repeat_ngram_size,
        repetition_penalty=1.0,
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        use_cache=use_cache,
        output_logits=num_beams == 1,
        output_scores=num_beams > 1,
        return_dict_in_generate=True,
        **({"length_penalty": length_penalty, "early_stopping": True} if num_beams > 1 else {}),
    )
    end = PublishedEnd(max_length, config.eos_token_id, config.pad_token_id)
    output = network.generate(
        encoder_outputs=encoder_outputs, generation_config=settings, logits_processor=LogitsProcessorList([end])
    )
    tokens = output.sequences[:, 1:].unflatten(0, (rows, num_return))
    if num_beams > 1:
        return Beams(tokens, output.sequences_scores.float().view(rows, num_return))
    return Beams(tokens, _greedy_scores(tokens, output.logits, config.pad_token_id, length_penalty))


def _greedy_scores(tokens: Tensor, logits: tuple[Tensor, ...], pad: int, length_penalty: float) -> Tensor:
    """The scores [B, 1] of tokens [B, 1, L] under the logits [B, V] of each step."""
    chosen = [step.float().log_softmax(-1).gather(1, tokens[:, :, place]) for place, step in enumerate(logits)]
    counted = tokens[:, 0] != pad
    total = torch.cat(chosen, dim=1).masked_fill(~counted, 0.0).sum(1)
    return (total / counted.sum(1) ** length_penalty)[:, None]
