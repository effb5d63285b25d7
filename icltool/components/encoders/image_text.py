"""Encoders of images and texts that transformers reads: CLIP, SigLIP, SigLIP 2 and others with two towers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icltool.components.encoders.loading import (
    check_tokens,
    encoder_errors,
    first_use,
    identity_of,
    load,
    pixels,
    read_config,
)
from icltool.components.encoders.locating import locate
from icltool.components.encoders.options import ImageTextOptions
from icltool.components.encoders.samples import SAMPLE_TEXT, sample_image
from icltool.contracts import FloatArray
from icltool.errors import ConfigError

#: Longer texts than this are cut if neither tokenizer nor model names a limit.
_LONGEST = 512


class ImageTextEncoder:
    """Two towers of transformers with their projections: both return float32 [n, D] in a common space.

    SigLIP's texts are lower case, padded to the full length and read without a mask, as in its training.
    """

    options_model = ImageTextOptions

    def __init__(self, options: ImageTextOptions) -> None:
        """Raises ConfigError if the weights are not on this machine, damaged, or not of such an encoder."""
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        self.name = options.name
        self._folder = folder = locate(options.name, options.hub_id, options.path)
        config = read_config(self.name, folder)
        model_class = AutoModel._model_mapping.get(type(config), None)
        if not hasattr(model_class, "get_text_features") or not hasattr(model_class, "get_image_features"):
            raise ConfigError(
                f"encoder {self.name!r}: {folder} contains a {config.model_type} model, which has no common space of images "
                "and texts",
                "choose an encoder such as CLIP or SigLIP 2; for a chat model use --model-path",
            )
        loaded = load(AutoModel, folder, options)
        self._model, self._device = loaded.model, loaded.device
        with encoder_errors(self.name, folder):
            self._processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._siglip = config.model_type.startswith("siglip")
        text_config = getattr(config, "text_config", config)
        limits = (self._tokenizer.model_max_length, getattr(text_config, "max_position_embeddings", None) or _LONGEST)
        self._max_length = options.max_length or min(*limits)
        self._identity = identity_of(folder, {"max_length": self._max_length, "dtype": options.dtype})
        with sample_image() as path:
            self.dim = first_use(self.name, folder, lambda: self._image_features([path]))
        of_texts = first_use(self.name, folder, lambda: self._text_features([SAMPLE_TEXT]))
        if of_texts != self.dim:
            raise ConfigError(
                f"encoder {self.name!r}: its images have {self.dim} dimensions and its texts {of_texts}",
                "choose an encoder with a common space of images and texts",
            )

    def fingerprint(self) -> str:
        return self._identity

    @torch.inference_mode()
    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        if not paths:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.asarray(self._image_features(paths).float().cpu())

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.asarray(self._text_features(texts).float().cpu())

    def _image_features(self, paths: Sequence[str]) -> Tensor:
        inputs = pixels(self.name, self._processor, paths, self._device, self._model.dtype)
        return _features(self._model.get_image_features(**inputs))

    def _text_features(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            [text.lower() for text in texts] if self._siglip else list(texts),
            padding="max_length" if self._siglip else True,
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        )
        check_tokens(self.name, self._model, tokens["input_ids"], self._folder)
        read = {"input_ids"} if self._siglip else set(inspect.signature(self._model.get_text_features).parameters)
        inputs = {key: value.to(self._device) for key, value in tokens.items() if key in read}
        return _features(self._model.get_text_features(**inputs))


def _features(output: Any) -> Tensor:
    """[n, D] of what a tower returns."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features
