"""IDEFICS that goes on from keys and values of tokens computed before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from icltool.components.models.idefics.logits_subset import SharedImages, WantedTokens
from icltool.components.models.shared.continued_cache import (
    continued_cache,
    forward_cache,
    generation_cache,
    own_keys_values,
)
from icltool.components.models.shared.continuing import (
    filled_cache,
    image_units,
    padded_prompts,
    padded_spans,
    span_log_probs,
    to_device,
    wanted_positions,
)
from icltool.components.models.shared.processed import text_limit
from icltool.components.models.shared.scoring import beam_options, decoded
from icltool.components.models.shared.tokens import tokenize
from icltool.contracts import Extension, GenerationOptions, KeysValues, Prompt, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from icltool.components.models.shared.loading import Network


@dataclass(frozen=True)
class _SeenImages:
    """`table` [n + 1, T, width] holds the features of n images and those of none; `rows` int64 [B, I] which of them the rows
    of a batch see, `mask` int64 [B, S, I] which token sees which."""

    table: torch.Tensor
    rows: torch.Tensor
    mask: torch.Tensor


class ContinuingIdefics:
    """Mixin of IdeficsModel: SupportsPrefixCache and ContinuesFromPrefix.

    A token attends to the last image before it, so a row is given the images that its own tokens see, and no others: that
    of its first token may stand before the span (the marker in front of an image still sees the image before).
    """

    model: Network
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    _pad: int
    _image_token: int
    _markers: list[int]
    _resampled: bool
    _narrowed: tuple[SharedImages, WantedTokens] | None = None

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """See SupportsPrefixCache."""
        tokens = tokenize(self.tokenizer, prompts, with_target, self._limit())
        return [image_units(t, p, self._image_token) for t, p in zip(tokens, prompts, strict=True)]

    @torch.inference_mode()
    def extend(
        self, spans: Sequence[Span], past: KeysValues | None, features: Mapping[str, torch.Tensor] | None, keep: bool
    ) -> Extension:
        """See SupportsPrefixCache."""
        columns = 0 if past is None else max(span.start for span in spans)
        batch = padded_spans(spans, self._pad, self.device, columns)
        wanted = wanted_positions(spans, self.device)
        images = self._seen_images(spans, batch.ids.shape[1], features)
        layers = self.model.config.num_hidden_layers
        cache = continued_cache(past, layers, columns, keep) if keep or past is not None else None
        sharing, narrowing = self._narrowing()
        with (
            ready_features(self.model.model.config),
            sharing.of(images.table, images.rows),
            narrowing.of(wanted.owners, wanted.places),
        ):
            output = self.model.model(
                inputs_embeds=self._embedded(batch.ids),
                attention_mask=batch.additive(self.dtype),
                position_ids=batch.positions,
                **forward_cache(self.model.model, cache),
                use_cache=cache is not None,
                image_attention_mask=images.mask,
                image_encoder_embeddings=images.table[images.rows],
            )
        config = self.model.config
        scores = span_log_probs(
            output.last_hidden_state, wanted, self.model.lm_head, config.vocab_size + config.additional_vocab_size
        )
        return Extension(scores, own_keys_values(cache) if keep and cache is not None else None)

    @torch.inference_mode()
    def generate_after(
        self,
        prompts: Sequence[PromptTokens],
        past: KeysValues,
        options: GenerationOptions,
        features: Mapping[str, torch.Tensor] | None,
    ) -> list[str]:
        """See ContinuesFromPrefix."""
        ids, present = padded_prompts(prompts, self._pad, self._limit(options.max_new_tokens))
        lasts = [Span(p, len(p.ids) - 1, len(p.ids)) for p in prompts]
        images = self._seen_images(lasts, 1, features)
        cache = filled_cache(past, options.num_beams)
        search = beam_options(self._pad, options)
        sharing, _ = self._narrowing()
        repeated = images.rows.repeat_interleave(options.num_beams, 0)
        with (
            whole_vocabulary(self.model.config),
            ready_features(self.model.model.config),
            sharing.of(images.table, repeated),
        ):
            output = self.model.generate(
                input_ids=to_device(ids, self.device),
                attention_mask=to_device(present, self.device),
                **generation_cache(cache),
                suppress_tokens=self._markers,
                image_hidden_states=images.table[images.rows],
                image_attention_mask=images.mask,
                **search,
            )
        return decoded(self.tokenizer, output[:, ids.shape[1] :])

    def _seen_images(
        self, spans: Sequence[Span], length: int, features: Mapping[str, torch.Tensor] | None
    ) -> _SeenImages:
        """The images that the tokens of these spans, filled up to `length`, attend to."""
        seen, mask_rows = [], []
        for span in spans:
            paths, places = _images_of(span, self._image_token)
            seen.append(paths)
            mask_rows.append(places + [-1] * (length - len(places)))
        most = max(1, *(len(paths) for paths in seen))
        mask = to_device(torch.tensor(mask_rows), self.device)[:, :, None] == torch.arange(most, device=self.device)
        needed = list(dict.fromkeys(path for paths in seen for path in paths))
        known = self._features_of(needed, features)
        place_of = {path: place for place, path in enumerate(needed)}
        rows = [[place_of[path] for path in paths] + [len(needed)] * (most - len(paths)) for paths in seen]
        table = torch.stack([*(known[path] for path in needed), self._no_image()])
        return _SeenImages(table, to_device(torch.tensor(rows), self.device), mask.long())

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """The embeddings [B, S, width] that the model would make of `ids`; its own way of finding the additional tokens waits
        for the device."""
        tables, size = self.model.model.embed_tokens, self.model.config.vocab_size
        found: torch.Tensor = torch.nn.functional.embedding(ids.clamp(max=size - 1), tables.weight)
        if not self.model.config.additional_vocab_size:
            return found
        additional = tables.additional_embedding((ids - size).clamp(min=0))
        return torch.where((ids >= size)[..., None], additional, found)

    def _narrowing(self) -> tuple[SharedImages, WantedTokens]:
        if self._narrowed is None:
            blocks = [layer.cross_attn for layer in self.model.model.gated_cross_attn_layers]
            projections = [p for block in blocks for p in (block.k_proj, block.v_proj)]
            self._narrowed = SharedImages(projections), WantedTokens(self.model.model.layers[-1].mlp)
        return self._narrowed

    def _features_of(
        self, paths: Sequence[str], features: Mapping[str, torch.Tensor] | None
    ) -> Mapping[str, torch.Tensor]:
        if features is not None or not paths:
            return features or {}
        return dict(zip(paths, self.image_features(paths, len(paths)), strict=True))

    def _limit(self, reserve: int = 0) -> int | None:
        return text_limit(self.model.config, reserve)

    def _no_image(self) -> torch.Tensor:
        """Features [tokens, width] of no image; nothing attends to them."""
        config = self.model.config
        vision = config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        if self._resampled:
            tokens = config.perceiver_config.resampler_n_latents
        return torch.zeros(tokens, vision.embed_dim, dtype=self.dtype, device=self.device)

    if TYPE_CHECKING:  # of the adapter

        def image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]: ...


@contextmanager
def whole_vocabulary(config: PreTrainedConfig) -> Iterator[None]:
    """Within it `vocab_size` counts the additional tokens too, as the logits do: beam search of some releases of
    transformers reshapes logits by it."""
    own = config.vocab_size
    config.vocab_size = own + config.additional_vocab_size
    try:
        yield
    finally:
        config.vocab_size = own


@contextmanager
def ready_features(config: PreTrainedConfig, ready: bool = True) -> Iterator[None]:
    """Within it, where `ready`, `image_encoder_embeddings` [B, I, T, width] are what image attention reads: the perceiver of a
    model that has one is left out. Its own output has a name of its own, `perceiver_embeddings`, but releases of transformers
    take that in different shapes, and from 5.24 on `generate` sends it through the perceiver once more."""
    own = config.use_resampler
    config.use_resampler = own and not ready
    try:
        yield
    finally:
        config.use_resampler = own


def _images_of(span: Span, image_token: int) -> tuple[list[str], list[int]]:
    """(images that the span's tokens attend to, in order; for each token which of them, or -1 for none)."""
    ids, images = span.tokens.ids, span.tokens.images
    current = sum(token == image_token for token in ids[: span.start]) - 1
    places = []
    for token in ids[span.start : span.end]:
        current += token == image_token
        places.append(current)
    seen = sorted({place for place in places if place >= 0})
    order = {place: k for k, place in enumerate(seen)}
    return [images[place] for place in seen], [order.get(place, -1) for place in places]
