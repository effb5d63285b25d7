"""Encoders of images that transformers reads: DINOv2, DINOv3, ViT and others without a text tower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from icltool.components.encoders.loading import encoder_errors, first_use, identity_of, load, pixels, read_config
from icltool.components.encoders.locating import locate
from icltool.components.encoders.options import ImageOptions
from icltool.components.encoders.samples import sample_image
from icltool.contracts import FloatArray
from icltool.errors import ConfigError

#: Last parts of the name of a class token's parameter.
_CLASS_TOKENS = {"cls_token", "class_embedding", "class_token"}


class ImageEncoder:
    """An image model of transformers, as float32 [n, D]. It encodes no texts."""

    options_model = ImageOptions
    modalities = frozenset({"image"})

    def __init__(self, options: ImageOptions) -> None:
        """Raises ConfigError if the weights are not on this machine, damaged, or not of such an encoder."""
        from transformers import AutoImageProcessor, AutoModel

        self.name = options.name
        self._folder = folder = locate(options.name, options.hub_id, options.path)
        config = read_config(self.name, folder)
        loaded = load(AutoModel, folder, options)
        self._model, self._device = loaded.model, loaded.device
        if self._model.main_input_name != "pixel_values":
            raise ConfigError(
                f"encoder {self.name!r}: {folder} contains a {config.model_type} model, which does not encode images alone",
                "choose an image encoder such as DINOv2",
            )
        self._pooling, self._pooler = options.pooling, loaded.pooler
        self._class_token = has_class_token(self._model)
        if self._pooling == "cls" and not self._class_token:
            raise ConfigError(
                f"encoder {self.name!r} has no class token, which pooling=cls reads", "--encoder-option pooling=mean"
            )
        self._registers = int(getattr(config, "num_register_tokens", 0) or 0)
        with encoder_errors(self.name, folder):
            self._processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
        self._identity = identity_of(folder, {"pooling": self._pooling, "dtype": options.dtype})
        with sample_image() as path:
            self.dim = first_use(self.name, folder, lambda: self._features([path]))

    def fingerprint(self) -> str:
        return self._identity

    @torch.inference_mode()
    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        if not paths:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.asarray(self._features(paths).float().cpu())

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Raises ConfigError."""
        raise ConfigError(
            f"encoder {self.name!r} encodes images only", "for texts choose another encoder, such as minilm or vit-l-14"
        )

    def _features(self, paths: Sequence[str]) -> Tensor:
        output = self._model(**pixels(self.name, self._processor, paths, self._device, self._model.dtype))
        pooler: Tensor | None = output.get("pooler_output") if self._pooler else None
        if self._pooling == "auto" and pooler is not None:
            return pooler.flatten(1)  # convolutional models keep two sides of length 1
        states: Tensor = output.last_hidden_state.float()
        if states.ndim == 4:
            return states.mean(dim=(2, 3))
        if self._pooling != "mean" and self._class_token:
            return states[:, 0]
        return states[:, self._registers + self._class_token :].mean(dim=1)


def has_class_token(model: nn.Module) -> bool:
    return any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in model.named_parameters())
