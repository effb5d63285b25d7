"""The prefix cache of IDEFICS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from icltool.components.models.idefics.logits_subset import SharedImages, TokenSubset
from icltool.components.models.shared.decoder_prefix_cache import DecoderPrefixCache
from icltool.components.models.shared.loading import text_limit
from icltool.components.models.shared.prefix_cache import PaddedSpans, PredictingPositions, image_units, to_device
from icltool.components.models.shared.tokens import tokenize
from icltool.contracts import Features, Prompt, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from icltool.components.models.shared.loading import Network


@dataclass(frozen=True)
class _SeenImages:
    """`table` [n + 1, T, width] holds the features of n images, then those of no image; `rows` int64 [B, I] which of them each
    row of a batch attends to, `mask` int64 [B, S, I] which token attends to which."""

    table: torch.Tensor
    rows: torch.Tensor
    mask: torch.Tensor


class IdeficsPrefixCache(DecoderPrefixCache):
    """SupportsPrefixCache and GeneratesFromPrefix of an IdeficsModel, whose image tokens have the id `image_token`.

    A token attends to the last image before it, so a row gets only the images that its own tokens attend to: that of its
    first token may come before the span (the marker in front of an image still attends to the previous image). `encode`
    returns the features [tokens, width] of images that have not been encoded.
    """

    def __init__(
        self,
        model: Network,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        markers: Sequence[int],
        image_token: int,
        encode: Callable[[Sequence[str]], Sequence[torch.Tensor]],
    ) -> None:
        super().__init__(model, model.model, tokenizer, device, markers)
        self._vocabulary += int(self._config.additional_vocab_size)
        self._image_token, self._encode, self._resampled = image_token, encode, bool(self._config.use_resampler)
        blocks = [layer.cross_attn for layer in self._decoder.gated_cross_attn_layers]
        self._shared = SharedImages([p for block in blocks for p in (block.k_proj, block.v_proj)])
        self._last_feed_forward = TokenSubset(self._decoder.layers[-1].mlp)

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """See SupportsPrefixCache."""
        tokens = tokenize(self._tokenizer, prompts, with_target, text_limit(self._config))
        return [image_units(t, p, self._image_token) for t, p in zip(tokens, prompts, strict=True)]

    @contextmanager
    def _extending(
        self, batch: PaddedSpans, positions: PredictingPositions, spans: Sequence[Span], features: Features
    ) -> Iterator[Mapping[str, object]]:
        images = self._seen_images(spans, batch.ids.shape[1], features)
        with (
            ready_features(self._config),
            self._shared.of(images.table, images.rows),
            self._last_feed_forward.of(positions.rows, positions.columns),
        ):
            yield {
                "inputs_embeds": self._embedded(batch.ids),
                "attention_mask": batch.additive(self._model.dtype),
                "position_ids": batch.positions,
                "image_attention_mask": images.mask,
                "image_encoder_embeddings": images.table[images.rows],
            }

    @contextmanager
    def _generating(
        self, prompts: Sequence[PromptTokens], ids: torch.Tensor, beams: int, features: Features
    ) -> Iterator[Mapping[str, object]]:
        images = self._seen_images([Span(p, len(p.ids) - 1, len(p.ids)) for p in prompts], 1, features)
        repeated = images.rows.repeat_interleave(beams, 0)
        with (
            whole_vocabulary(self._config),
            ready_features(self._config),
            self._shared.of(images.table, repeated),
        ):
            yield {"image_hidden_states": images.table[images.rows], "image_attention_mask": images.mask}

    def _seen_images(self, spans: Sequence[Span], length: int, features: Features) -> _SeenImages:
        """The images that the tokens of these spans, padded to `length`, attend to."""
        seen, mask_rows = [], []
        for span in spans:
            paths, places = _images_of(span, self._image_token)
            seen.append(paths)
            mask_rows.append(places + [-1] * (length - len(places)))
        most = max(1, *(len(paths) for paths in seen))
        mask = to_device(torch.tensor(mask_rows), self.device)[:, :, None] == torch.arange(most, device=self.device)
        needed = list(dict.fromkeys(path for paths in seen for path in paths))
        known = dict(zip(needed, self._encode(needed), strict=True)) if features is None and needed else features or {}
        place_of = {path: place for place, path in enumerate(needed)}
        rows = [[place_of[path] for path in paths] + [len(needed)] * (most - len(paths)) for paths in seen]
        table = torch.stack([*(known[path] for path in needed), self._no_image()])
        return _SeenImages(table, to_device(torch.tensor(rows), self.device), mask.long())

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """The model's embeddings [B, S, width] of `ids`. Its own lookup of the additional tokens would synchronise with the
        device."""
        tables, size = self._decoder.embed_tokens, self._config.vocab_size
        embedded: torch.Tensor = torch.nn.functional.embedding(ids.clamp(max=size - 1), tables.weight)
        if not self._config.additional_vocab_size:
            return embedded
        additional = tables.additional_embedding((ids - size).clamp(min=0))
        return torch.where((ids >= size)[..., None], additional, embedded)

    def _no_image(self) -> torch.Tensor:
        """Features [tokens, width] that stand for no image; nothing attends to them."""
        config = self._config
        vision = config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        if self._resampled:
            tokens = config.perceiver_config.resampler_n_latents
        return torch.zeros(tokens, vision.embed_dim, dtype=self._model.dtype, device=self.device)


@contextmanager
def whole_vocabulary(config: PreTrainedConfig) -> Iterator[None]:
    """A context in which `vocab_size` includes the additional tokens, as the logits do: beam search in some releases of
    transformers reshapes logits by it."""
    own = config.vocab_size
    config.vocab_size = own + config.additional_vocab_size
    try:
        yield
    finally:
        config.vocab_size = own


@contextmanager
def ready_features(config: PreTrainedConfig, ready: bool = True) -> Iterator[None]:
    """A context in which, if `ready`, image attention reads `image_encoder_embeddings` [B, I, T, width] directly: a perceiver
    is skipped. transformers has a separate input for its output, `perceiver_embeddings`, but its shape differs between
    releases, and from 5.24 on `generate` sends it through the perceiver once more."""
    own = config.use_resampler
    config.use_resampler = own and not ready
    try:
        yield
    finally:
        config.use_resampler = own


def _images_of(span: Span, image_token: int) -> tuple[list[str], list[int]]:
    """(the images that the span's tokens attend to, in order; for each token the index of its image, or -1 for none)."""
    ids, images = span.tokens.ids, span.tokens.images
    current = sum(token == image_token for token in ids[: span.start]) - 1
    places = []
    for token in ids[span.start : span.end]:
        current += token == image_token
        places.append(current)
    seen = sorted({place for place in places if place >= 0})
    order = {place: k for k, place in enumerate(seen)}
    return [images[place] for place in seen], [order.get(place, -1) for place in places]
