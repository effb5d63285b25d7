"""The prefix cache of models whose tokens attend to images in layers of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.decoder_prefix_cache import DecoderPrefixCache
from icltool.components.models.shared.logits_subset import SharedImages
from icltool.components.models.shared.prefix_cache import image_units, to_device
from icltool.components.models.shared.tokens import tokenize
from icltool.contracts import Features, Prompt, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icltool.components.models.shared.loading import Network


@dataclass(frozen=True)
class AttendedImages:
    """`table` [n + 1, T, width] holds the features of n images, then those of no image; `rows` int64 [B, I] which of them each
    row of a batch attends to; `places` int64 [B, S] to which of its row's images each token attends, -1 for none."""

    table: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor


class CrossAttentionPrefixCache(DecoderPrefixCache):
    """SupportsPrefixCache and GeneratesFromPrefix of a model whose image tokens have the id `image_token` and whose tokens
    attend to the last image before them (IDEFICS, OpenFlamingo).

    A row gets only the images that its own tokens attend to: that of its first token may come before the span (the marker in
    front of an image still attends to the previous image). `encode` returns the features [tokens, width] of images that have
    not been encoded, and `projections` are the layers that turn features into keys and values.
    """

    def __init__(
        self,
        model: Network,
        decoder: Network,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        barred: Sequence[int],
        image_token: int,
        encode: Callable[[Sequence[str]], Sequence[torch.Tensor]],
        projections: Sequence[torch.nn.Module],
    ) -> None:
        super().__init__(model, decoder, tokenizer, device, barred)
        self._image_token, self._encode = image_token, encode
        self._shared = SharedImages(projections)

    @abstractmethod
    def _no_image(self) -> torch.Tensor:
        """Features [tokens, width] that stand for no image; nothing attends to them."""

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """See SupportsPrefixCache."""
        tokens = tokenize(self._tokenizer, prompts, with_target, self._limit())
        return [image_units(t, p, self._image_token) for t, p in zip(tokens, prompts, strict=True)]

    def _attended_images(self, spans: Sequence[Span], length: int, features: Features) -> AttendedImages:
        """The images that the tokens of these spans, padded to `length`, attend to."""
        images, places = [], []
        for span in spans:
            paths, of_tokens = attended_by(span, self._image_token)
            images.append(paths)
            places.append(of_tokens + [-1] * (length - len(of_tokens)))
        most = max(1, *(len(paths) for paths in images))
        needed = list(dict.fromkeys(path for paths in images for path in paths))
        known = dict(zip(needed, self._encode(needed), strict=True)) if features is None and needed else features or {}
        place_of = {path: place for place, path in enumerate(needed)}
        rows = [[place_of[path] for path in paths] + [len(needed)] * (most - len(paths)) for paths in images]
        table = torch.stack([*(known[path] for path in needed), self._no_image()])
        return AttendedImages(
            table, to_device(torch.tensor(rows), self.device), to_device(torch.tensor(places), self.device)
        )


def attended_by(span: Span, image_token: int) -> tuple[list[str], list[int]]:
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
