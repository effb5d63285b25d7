"""The prefix cache of models that represent images as tokens among those of the text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from icltool.components.models.shared.decoder_prefix_cache import DecoderPrefixCache, layers_support_prefix_cache
from icltool.components.models.shared.loading import text_limit
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

_WITH_THREE_POSITIONS = frozenset({"qwen2_5_vl_text", "qwen2_vl_text"})


class ImagePrefixCache(DecoderPrefixCache):
    """SupportsPrefixCache and GeneratesFromPrefix of a ProcessedModel.

    `tokenize` tokenizes prompts without reading an image again, `tokens_of` returns the number of tokens for the image at a
    path, and `encode` the features of images that have not been encoded: [tokens, width] (or [tiles, tokens, width]) each.
    """

    def __init__(
        self,
        adapter: ProcessedModel,
        decoder: Network,
        image_token: int,
        tokenize: Tokenize,
        tokens_of: Callable[[str], int],
        encode: Callable[[Sequence[str]], Sequence[torch.Tensor]],
    ) -> None:
        super().__init__(adapter.model, decoder, adapter.tokenizer, adapter.device, adapter.image_tokens)
        self._recorder, self._image_token = adapter.recorder, image_token
        self._tokenize, self._tokens_of, self._encode = tokenize, tokens_of, encode

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
        limit = text_limit(self._model.config)
        tokens = []
        for ids, mask, start, prompt in zip(
            encoded["input_ids"], encoded["attention_mask"], starts, prompts, strict=True
        ):
            length = sum(mask)
            check_length(length, limit)
            tokens.append(self._tokens(tuple(ids[:length]), length if start is None else start, prompt.images))
        return tokens

    def _tokens(self, ids: tuple[int, ...], target_start: int, images: tuple[str, ...]) -> PromptTokens:
        image_tokens = iter([(path, number) for path in images for number in range(self._tokens_of(path))])
        units: list[Hashable] = []
        shared = target_start
        for position, token in enumerate(ids):
            if token != self._image_token:
                units.append(token)
                continue
            path, number = next(image_tokens)
            units.append((token, path, number))
            if number == 0:
                shared = position
        return PromptTokens(ids, tuple(units), target_start, shared, images)

    def _inputs(self, batch: PaddedSpans, spans: Sequence[Span], features: Features) -> dict[str, torch.Tensor]:
        """Embeddings, with image features in place of image tokens."""
        embedded = self._model.get_input_embeddings()(batch.ids)
        positions, image_tokens = [], []
        for row, span in enumerate(spans):
            for column, unit in enumerate(span.tokens.units[span.start : span.end]):
                if isinstance(unit, tuple):
                    positions.append(row * batch.ids.shape[1] + column)
                    image_tokens.append(unit[1:])
        if positions:
            paths = list(dict.fromkeys(path for path, _ in image_tokens))
            known = features if features is not None else dict(zip(paths, self._encode(paths), strict=True))
            tables = [known[path].reshape(-1, embedded.shape[-1]) for path in paths]
            first_rows = dict(zip(paths, _sums_before([len(table) for table in tables]), strict=True))
            rows = [first_rows[path] + number for path, number in image_tokens]
            token_rows, feature_rows = to_device(torch.tensor([positions, rows]), embedded.device)
            table = torch.cat(tables).to(embedded.device, embedded.dtype)
            embedded = embedded.flatten(0, 1).index_copy(0, token_rows, table[feature_rows]).view_as(embedded)
        return {"inputs_embeds": embedded, "position_ids": self._positions(batch, spans)}

    def _positions(self, batch: PaddedSpans, spans: Sequence[Span]) -> torch.Tensor:
        return batch.positions


class ThreePositions(ImagePrefixCache):
    """Qwen2-VL and Qwen2.5-VL: a token has three positions (time, height, width), which depend on all images before it.

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


def text_supports_prefix_cache(config: PreTrainedConfig) -> bool:
    """Whether a language model of this configuration supports a prefix cache."""
    return config.model_type in WITH_PREFIX_CACHE | _WITH_THREE_POSITIONS and layers_support_prefix_cache(config)


def _sums_before(lengths: Sequence[int]) -> list[int]:
    sums = [0]
    for length in lengths:
        sums.append(sums[-1] + length)
    return sums[:-1]
