"""IDEFICS2 (transformers' Idefics2ForConditionalGeneration): idefics2-8b and idefics2-8b-base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from icltool.components.models.idefics.fixed_formats import FixedFormats
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.adapter import EncodesImages
from icltool.components.models.shared.image_prefix_cache import ImagePrefixCache, text_supports_prefix_cache
from icltool.components.models.shared.image_reader import ImageReader, Pixels, on_device, padded
from icltool.components.models.shared.processed import ModelInputs, ProcessedModel
from icltool.components.models.shared.prompt_format import IDEFICS2_FORMATS
from icltool.components.models.shared.weights import Weights
from icltool.contracts import Features, Prompt

if TYPE_CHECKING:
    from icltool.components.models.shared.loading import ModelClass, Network


class Idefics2Model(EncodesImages, FixedFormats, ProcessedModel):
    """The adapter. Images are not split, as in the published runs: an image is 64 tokens in the 8B models."""

    options_model = IdeficsOptions
    formats = IDEFICS2_FORMATS

    def __init__(self, options: IdeficsOptions) -> None:
        """Loads processor and weights. Raises ConfigError when weights are missing or do not fit."""
        super().__init__(options)
        tokens = ["<image>", "<fake_token_around_image>"]
        markers = cast("list[int]", self.tokenizer.convert_tokens_to_ids(tokens))
        self.image_tokens = sorted({*self.image_tokens, *markers})
        decoder = self.model.model.text_model
        if text_supports_prefix_cache(decoder.config):
            self._use_prefix_cache(self._prefix_cache(decoder, markers[0]))

    def model_class(self) -> ModelClass:
        from transformers import Idefics2ForConditionalGeneration

        return Idefics2ForConditionalGeneration

    def _open(self, options: IdeficsOptions) -> Weights:
        self.template, self.format = options.template, self.format_of(options)
        weights = super()._open(options)
        self.processor.image_processor.do_image_splitting = False
        return weights

    def _prefix_cache(self, decoder: Network, image_token: int) -> ImagePrefixCache:
        """The model's SupportsPrefixCache and GeneratesFromPrefix. Every image has the same number of tokens, so the processor
        writes them without reading an image."""
        length = int(self.processor.image_seq_len)
        return ImagePrefixCache(
            self,
            decoder,
            image_token,
            lambda texts, prompts: self.processor(text=texts),
            lambda path, images: range(length),
            lambda paths: self.image_features(paths, len(paths)),
        )

    def shifted_modules(self) -> Sequence[torch.nn.Module]:
        """See SupportsDecoderHooks: LIVE shifts the output of each layer's feed-forward part in IDEFICS2."""
        return [layer.get_submodule("mlp") for layer in self.decoder_layers()]

    def image_reader(self) -> ImageReader:
        """See PreparesImages."""
        return ImageReader(self.processor.image_processor, nested=True)

    @torch.inference_mode()
    def encode_images(self, prepared: Sequence[Pixels]) -> list[torch.Tensor]:
        """See PreparesImages. One tensor [tokens, width] per image: the connector's output, which replaces the embeddings of
        the image tokens. Images of different sizes are padded; the vision encoder does not attend to padding."""
        pixels, mask = (on_device(array, self.device) for array in padded(prepared))
        states = self.model.get_image_features(pixels[:, None], mask[:, None], return_dict=True).pooler_output
        width = states[0].shape[-1]  # a list with an item per image, or in some releases one tensor of all tokens
        joined = states if isinstance(states, torch.Tensor) else torch.cat([s.reshape(-1, width) for s in states])
        return list(joined.reshape(len(prepared), -1, width))

    def _processed(self, texts: list[str], prompts: Sequence[Prompt], features: Features) -> ModelInputs:
        ready = "mm_encoder_outputs" in self._forward  # earlier releases drop ready features in `generate`
        if features is None or not ready or not any(p.images for p in prompts):
            return super()._processed(texts, prompts, features)
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        inputs = self._on_device(self.processor(text=texts, return_tensors="pt"))
        rows: Any = [torch.cat([features[path] for path in p.images]) for p in prompts]
        inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=rows)}
        return inputs
