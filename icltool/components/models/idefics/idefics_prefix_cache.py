"""The prefix cache of IDEFICS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.cross_attention_prefix_cache import AttendedImages, CrossAttentionPrefixCache
from icltool.components.models.shared.logits_subset import TokenSubset
from icltool.components.models.shared.prefix_cache import PaddedSpans, PredictingPositions
from icltool.contracts import Features, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from icltool.components.models.shared.loading import Network


class IdeficsPrefixCache(CrossAttentionPrefixCache):
    """SupportsPrefixCache and GeneratesFromPrefix of an IdeficsModel; `markers` are never generated."""

    def __init__(
        self,
        model: Network,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        markers: Sequence[int],
        image_token: int,
        encode: Callable[[Sequence[str]], Sequence[torch.Tensor]],
    ) -> None:
        blocks = [layer.cross_attn for layer in model.model.gated_cross_attn_layers]
        projections = [p for block in blocks for p in (block.k_proj, block.v_proj)]
        super().__init__(model, model.model, tokenizer, device, markers, image_token, encode, projections)
        self._vocabulary += int(self._config.additional_vocab_size)
        self._resampled = bool(self._config.use_resampler)
        self._last_feed_forward = TokenSubset(self._decoder.layers[-1].mlp)

    @contextmanager
    def _extending(
        self, batch: PaddedSpans, positions: PredictingPositions, spans: Sequence[Span], features: Features
    ) -> Iterator[Mapping[str, object]]:
        images, mask = self._attended(spans, batch.ids.shape[1], features)
        with (
            ready_features(self._config),
            self._shared.of(images.table, images.rows),
            self._last_feed_forward.of(positions.rows, positions.columns),
        ):
            yield {
                "inputs_embeds": self._embedded(batch.ids),
                "attention_mask": batch.additive(self._model.dtype),
                "position_ids": batch.positions,
                "image_attention_mask": mask,
                "image_encoder_embeddings": images.table[images.rows],
            }

    @contextmanager
    def _generating(
        self, prompts: Sequence[PromptTokens], ids: torch.Tensor, beams: int, features: Features
    ) -> Iterator[Mapping[str, object]]:
        images, mask = self._attended([Span(p, len(p.ids) - 1, len(p.ids)) for p in prompts], 1, features)
        repeated = images.rows.repeat_interleave(beams, 0)
        with (
            whole_vocabulary(self._config),
            ready_features(self._config),
            self._shared.of(images.table, repeated),
        ):
            yield {"image_hidden_states": images.table[images.rows], "image_attention_mask": mask}

    def _attended(self, spans: Sequence[Span], length: int, features: Features) -> tuple[AttendedImages, torch.Tensor]:
        """The images that the tokens of these spans attend to, and int64 [B, S, I] which token attends to which."""
        images = self._attended_images(spans, length, features)
        columns = torch.arange(images.rows.shape[1], device=self.device)
        return images, (images.places[:, :, None] == columns).long()

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
