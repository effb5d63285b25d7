"""The prefix cache of the OpenFlamingo models (`icltool.SupportsPrefixCache`, `icltool.GeneratesFromPrefix`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from icltool import CrossAttentionPrefixCache, Features, PaddedSpans, PredictingPositions, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FlamingoPrefixCache(CrossAttentionPrefixCache):
    """Of an open_flamingo `Flamingo`. `limit` is the language model's token limit."""

    def __init__(
        self,
        flamingo: Any,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        image_token: int,
        encode: Callable[[Sequence[str]], Sequence[torch.Tensor]],
        ends: Sequence[int],
        limit: int | None,
    ) -> None:
        lm = flamingo.lang_encoder
        self._layers = list(lm._get_decoder_layers())
        crossing = [layer.gated_cross_attn_layer for layer in self._layers if layer.gated_cross_attn_layer is not None]
        projections = [layer.attn.to_kv for layer in crossing]
        super().__init__(lm, lm.base_model, tokenizer, device, [image_token], image_token, encode, projections)
        self._blank, self._ends, self._tokens_at_most = flamingo.perceiver.latents, list(ends), limit

    def _limit(self, reserve: int = 0) -> int | None:
        return None if self._tokens_at_most is None else self._tokens_at_most - reserve

    def _no_image(self) -> torch.Tensor:
        return torch.zeros_like(self._blank)

    @contextmanager
    def _extending(
        self, batch: PaddedSpans, positions: PredictingPositions, spans: Sequence[Span], features: Features
    ) -> Iterator[Mapping[str, object]]:
        images = self._attended_images(spans, batch.ids.shape[1], features)
        number = images.places + 1  # of the image that a token attends to
        steps = torch.diff(number, dim=1, prepend=torch.zeros_like(number[:, :1]))  # the layers sum them up
        with (
            self._shared.of(images.table, images.rows),
            self._attending(images.table[images.rows], steps, at_last_image=False),
            self._as_long_as(batch.present.shape[1]),
        ):
            yield {"input_ids": batch.ids, "position_ids": batch.positions, "attention_mask": self._masks(batch, spans)}

    @contextmanager
    def _generating(
        self, prompts: Sequence[PromptTokens], ids: torch.Tensor, beams: int, features: Features
    ) -> Iterator[Mapping[str, object]]:
        images = self._attended_images([Span(p, len(p.ids) - 1, len(p.ids)) for p in prompts], 1, features)
        rows = images.rows.repeat_interleave(beams, 0)
        image = (images.places + 1).repeat_interleave(beams, 0)
        with (
            self._shared.of(images.table, rows),
            self._attending(images.table[rows], image, at_last_image=True),
        ):
            yield {"use_cache": True, "eos_token_id": self._ends}

    @contextmanager
    def _attending(self, media: torch.Tensor, locations: torch.Tensor, at_last_image: bool) -> Iterator[None]:
        """A context in which the layers attend to `media` [B, images, latents, width], whose places among the tokens are
        `locations` int64 [B, S]; with `at_last_image` every token attends to the last of them."""
        try:
            for layer in self._layers:
                layer.condition_vis_x(media)
                layer.condition_media_locations(locations)
                layer.condition_use_cached_media(at_last_image)
            self._model._use_cached_vision_x = at_last_image
            yield
        finally:
            self._model.clear_conditioned_layers()
            self._model._use_cached_vision_x = False

    @contextmanager
    def _as_long_as(self, columns: int) -> Iterator[None]:
        """A context in which MPT's biases, which depend on distances alone, reach over so many columns: a batch with padding
        may be longer than a prompt."""
        limit = getattr(self._config, "max_seq_len", None)
        if limit is None:
            yield
            return
        self._config.max_seq_len = max(limit, columns)
        try:
            yield
        finally:
            self._config.max_seq_len = limit
