"""CLIP models through open_clip: OpenAI's, LAION's, and the embedded world's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch

from icltool.contracts import FloatArray
from icltool.errors import ConfigError
from icltool.models.images import read_image
from icltool.models.weights import fingerprint, packaged_weights


class OpenClipEncoder:
    """An open_clip model's two towers with their projections: both give float32 [n, D] in one space."""

    def __init__(
        self,
        name: str = "open-clip",
        packaged: str | None = None,
        architecture: str | None = None,
        pretrained: str | None = None,
        path: str | None = None,
        device: str = "auto",
    ) -> None:
        """`packaged` or a folder `path` hold open_clip_config.json and weights; else `architecture` with `pretrained`, a
        tag of open_clip's own list or a weights file.

        Raises ConfigError when the weights are not on this machine and the user did not name a source in `path`.
        """
        logging.getLogger("root").setLevel(logging.WARNING)  # open_clip reports its lookups on the root logger
        self.name = name
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        folder = path or (str(packaged_weights(packaged)) if packaged else None)
        if folder is not None and Path(folder).is_dir():
            identifier, weights = f"local-dir:{folder}", None
            self._identity = fingerprint(folder)
        else:
            if architecture is None:
                raise ConfigError(
                    f"encoder {name!r}: {folder!r} is no folder", "give a folder with open_clip_config.json"
                )
            identifier, weights = architecture, path or _cached_weights(name, architecture, pretrained)
            self._identity = f"{architecture}-{pretrained or Path(str(path)).name}"
        try:
            model, _, self._transform = open_clip.create_model_and_transforms(identifier, pretrained=weights)
            self._tokenizer = open_clip.get_tokenizer(identifier)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"encoder {name!r} cannot be loaded from {folder or weights}: {error}") from error
        self._model = model.to(self.device).eval().requires_grad_(False)
        self.dim = int(self._model.text_projection.shape[-1])

    def fingerprint(self) -> str:
        return self._identity

    @torch.inference_mode()
    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        if not paths:
            return np.zeros((0, self.dim), dtype=np.float32)
        pixels = torch.stack([self._transform(read_image(path)) for path in paths])
        return np.asarray(self._model.encode_image(pixels.to(self.device)).float().cpu())

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.asarray(self._model.encode_text(self._tokenizer(list(texts)).to(self.device)).float().cpu())


def _cached_weights(name: str, architecture: str, pretrained: str | None) -> str:
    """The weights file of an open_clip tag where it is on this machine already; ConfigError where it is not."""
    from huggingface_hub import try_to_load_from_cache

    if not pretrained:
        raise ConfigError(f"encoder {name!r} names no weights", "give pretrained=TAG or path=FILE")
    known = open_clip.get_pretrained_cfg(architecture, pretrained)
    hub_id = str(known.get("hf_hub", "")).strip("/")
    for file in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        found = try_to_load_from_cache(hub_id, file) if hub_id else None
        if isinstance(found, str):
            return found
    raise ConfigError(
        f"weights {pretrained!r} of encoder {name!r} ({architecture}) are not on this machine",
        f"download them first: python -c \"import open_clip; open_clip.create_model('{architecture}', '{pretrained}')\", "
        "or give --encoder-path FILE",
    )
