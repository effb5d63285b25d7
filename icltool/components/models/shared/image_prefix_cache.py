"""The prefix cache of models that represent images as tokens among those of the text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from icltool.components.models.shared.decoder_prefix_cache import DecoderPrefixCache, layers_support_prefix_cache
from icltool.components.models.shared.prefix_cache import PaddedSpans, to_device
from icltool.components.models.shared.processed import ProcessedModel
from icltool.components.models.shared.text_prefix_cache import WITH_PREFIX_CACHE
from icltool.components.models.shared.tokens import check_length, check_prompts, padded_rows
from icltool.contracts import Features, Prompt, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from icltool.components.models.shared.loading import Network

#: (texts, prompts) -> their tokens, "input_ids" and "attention_mask", including those of images, by the adapter's recorder.
Tokenize = Callable[[list[str], Sequence[Prompt]], Mapping[str, Sequence[Sequence[int]]]]

#: (path of an image, number of images in the prompt) -> the rows of its features that its tokens stand for.
Rows = Callable[[str, int], range]

#: Language models that exist in vision-language models only.
_WITH_IMAGES = frozenset({"gemma4_text", "ministral3", "qwen2_5_vl_text", "qwen2_vl_text", "qwen3_vl_text"})


class ImagePrefixCache(DecoderPrefixCache):
    """SupportsPrefixCache and GeneratesFromPrefix of a ProcessedModel.

    `tokenize` tokenizes prompts without reading an image again, and `encode` returns the features of images that have not
    been encoded: [rows, width] (or [tiles, rows, width]) each.
    """

    def __init__(
        self,
        adapter: ProcessedModel,
        decoder: Network,
        image_token: int,
        tokenize: Tokenize,
        rows_of: Rows,
        encode: Callable[[Sequence[str]], Sequence[torch.Tensor]],
    ) -> None:
        super().__init__(adapter.model, decoder, adapter.tokenizer, adapter.device, adapter.image_tokens)
        self._recorder, self._image_token = adapter.recorder, image_token
        self._tokenize, self._rows_of, self._encode = tokenize, rows_of, encode

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """See SupportsPrefixCache. Everything before the first token of the last image can be shared with other prompts."""
        check_prompts(prompts, with_target)
        if not prompts:
            return []
        self._recorder.padding_side = "right"
        texts = [p.text + p.target if with_target else p.text for p in prompts]
        encoded = self._tokenize(texts, prompts)
        starts: list[int | None] = [None] * len(prompts)
        if with_target:
            starts = [first for first, _ in self._recorder.target_spans([p.target for p in prompts])]
        limit = self._limit()
        tokens = []
        for ids, mask, start, prompt in zip(
            encoded["input_ids"], encoded["attention_mask"], starts, prompts, strict=True
        ):
            length = sum(mask)
            check_length(length, limit)
            tokens.append(self._tokens(tuple(ids[:length]), length if start is None else start, prompt.images))
        return tokens

    def _tokens(self, ids: tuple[int, ...], target_start: int, images: tuple[str, ...]) -> PromptTokens:
        rows = [(path, self._rows_of(path, len(images))) for path in images]
        image_tokens = iter([(path, row, row == of_image.start) for path, of_image in rows for row in of_image])
        units: list[Hashable] = []
        shared = target_start
        for position, token in enumerate(ids):
            if token != self._image_token:
                units.append(token)
                continue
            path, row, first = next(image_tokens)
            units.append((token, path, row))
            if first:
                shared = position
        return PromptTokens(ids, tuple(units), target_start, shared, images, self._blocks(ids))

    def _blocks(self, ids: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """See PromptTokens."""
        return ()

    def _inputs(self, batch: PaddedSpans, spans: Sequence[Span], features: Features) -> dict[str, torch.Tensor]:
        """Embeddings, with image features in place of image tokens."""
        ids = self._without_image_tokens(batch.ids)
        inputs = {
            "inputs_embeds": self._model.get_input_embeddings()(ids),
            "position_ids": self._positions(batch, spans),
        }
        positions, image_tokens = [], []
        for row, span in enumerate(spans):
            for column, unit in enumerate(span.tokens.units[span.start : span.end]):
                if isinstance(unit, tuple):
                    positions.append(row * batch.ids.shape[1] + column)
                    image_tokens.append(unit[1:])
        if positions:
            paths = list(dict.fromkeys(path for path, _ in image_tokens))
            known = features if features is not None else dict(zip(paths, self._encode(paths), strict=True))
            tables = [known[path].flatten(0, -2) for path in paths]
            first_rows = dict(zip(paths, _sums_before([len(table) for table in tables]), strict=True))
            rows = [first_rows[path] + number for path, number in image_tokens]
            places, feature_rows = to_device(torch.tensor([positions, rows]), batch.ids.device)
            embedded = inputs["inputs_embeds"]
            table = torch.cat(tables).to(embedded.device, embedded.dtype)
            inputs |= self._with_images(embedded, places, table[feature_rows])
        return inputs

    def _with_images(
        self, embedded: torch.Tensor, places: torch.Tensor, states: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Inputs of the decoder with the states of image tokens [N, width], whose places in `embedded` [B, S, width], row by
        row, are int64 [N]."""
        return {"inputs_embeds": embedded.flatten(0, 1).index_copy(0, places, states).view_as(embedded)}

    def _without_image_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """`ids` with padding in place of image tokens, which are not in every model's vocabulary."""
        return ids.masked_fill(ids == self._image_token, int(self._config.pad_token_id or 0))

    def _positions(self, batch: PaddedSpans, spans: Sequence[Span]) -> torch.Tensor:
        return batch.positions


class ThreePositions(ImagePrefixCache):
    """Qwen2-VL and later: a token has three positions (time, height, width), which depend on all images before it.

    `grids_of` gives the image's patches as int64 [1, 3] (time, height, width) on the CPU.
    """

    def __init__(self, *parts: Any, grids_of: Callable[[str], torch.Tensor]) -> None:
        super().__init__(*parts)
        self._grids_of = grids_of

    def _positions(self, batch: PaddedSpans, spans: Sequence[Span]) -> torch.Tensor:
        """int64 [3, B, S]: a slice of the whole prompt's positions; padding has those of the row's last token."""
        rows = padded_rows([span.tokens.ids for span in spans], self._pad)
        image_inputs = self._generation_inputs([span.tokens for span in spans], rows.ids)
        if image_inputs:
            whole = self._model.model.get_rope_index(rows.ids, attention_mask=rows.mask, **image_inputs)[0]
        else:
            whole = torch.arange(rows.ids.shape[1]).expand(3, len(spans), -1)
        first = torch.tensor([[span.start] for span in spans])
        last = torch.tensor([[max(span.start, span.end - 1)] for span in spans])
        columns = torch.minimum(first + torch.arange(batch.ids.shape[1]), last)
        return to_device(whole.gather(2, columns.expand(3, -1, -1)), self.device)

    def _generation_inputs(self, prompts: Sequence[PromptTokens], ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs that determine positions: which of `ids` [B, T] stand for images, and the grids of all images."""
        self._model.model.rope_deltas = None  # else those of an earlier call would be used
        grids = [self._grids_of(path) for prompt in prompts for path in prompt.images]
        if not grids:
            return {}
        return {"mm_token_type_ids": ids.eq(self._image_token).long(), "image_grid_thw": torch.cat(grids)}


class DeeperStates(ThreePositions):
    """Qwen3-VL: behind the states of an image token stand those that are added to it after the first layers."""

    def _with_images(self, embedded: torch.Tensor, places: torch.Tensor, states: torch.Tensor) -> dict[str, Any]:
        first, *deeper = states.chunk(states.shape[-1] // embedded.shape[-1], dim=-1)
        zeros = torch.zeros_like(embedded).flatten(0, 1)
        added = [zeros.index_copy(0, places, state).view_as(embedded) for state in deeper]
        # The decoder adds to the rows of its states that an index selects; a mask of tokens would be read from the device.
        every_row = torch.arange(len(embedded), device=embedded.device)
        inputs = super()._with_images(embedded, places, first)
        return {**inputs, "visual_pos_masks": every_row, "deepstack_visual_embeds": added}


class JoinedImages(ImagePrefixCache):
    """Gemma 3: the tokens of an image attend to each other, whatever their order."""

    def _blocks(self, ids: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        borders = [
            position
            for position in range(len(ids) + 1)
            if (position < len(ids) and ids[position] == self._image_token)
            != (position > 0 and ids[position - 1] == self._image_token)
        ]
        return tuple(zip(borders[::2], borders[1::2], strict=True))

    def _masks(self, batch: PaddedSpans, spans: Sequence[Span]) -> torch.Tensor | dict[str, torch.Tensor]:
        return super()._masks(batch.joined(spans), spans)


class Gemma4PrefixCache(JoinedImages):
    """Gemma 4: in some models the tokens of an image attend to each other, in the layers with a window only; in some, a
    token's embedding is also given to each layer."""

    def _blocks(self, ids: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        return super()._blocks(ids) if self._config.use_bidirectional_attention else ()

    def _masks(self, batch: PaddedSpans, spans: Sequence[Span]) -> torch.Tensor | dict[str, torch.Tensor]:
        masks = ImagePrefixCache._masks(self, batch, spans)
        joined = super()._masks(batch, spans)
        if isinstance(masks, dict) and isinstance(joined, dict):
            return {**masks, "sliding_attention": joined["sliding_attention"]}
        return masks

    def _inputs(self, batch: PaddedSpans, spans: Sequence[Span], features: Features) -> dict[str, torch.Tensor]:
        inputs = super()._inputs(batch, spans, features)
        if self._config.hidden_size_per_layer_input:
            ids = self._without_image_tokens(batch.ids)
            inputs["per_layer_inputs"] = self._decoder.get_per_layer_inputs(ids, None)
        return inputs


def text_supports_prefix_cache(config: PreTrainedConfig) -> bool:
    """Whether a language model of this configuration supports a prefix cache."""
    return config.model_type in WITH_PREFIX_CACHE | _WITH_IMAGES and layers_support_prefix_cache(config)


def _sums_before(lengths: Sequence[int]) -> list[int]:
    sums = [0]
    for length in lengths:
        sums.append(sums[-1] + length)
    return sums[:-1]
