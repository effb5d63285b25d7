"""The CLIP tower, as OpenFlamingo reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from icltool import ConfigError, read_image

if TYPE_CHECKING:
    import torch
    from open_clip import CLIP
    from PIL.Image import Image


Pixels = NDArray[np.float32]


class ImageReader:
    """Path -> float32 [3, H, W]; see `icltool.PreparesImages`."""

    def __init__(self, transform: Callable[[Image], torch.Tensor]) -> None:
        self._transform = transform

    def __call__(self, path: str) -> Pixels:
        pixels: Pixels = self._transform(read_image(path)).numpy()
        return pixels


def load_clip(folder: Path) -> tuple[CLIP, Callable[[Image], torch.Tensor], int]:
    """(CLIP model, image transform, width of its patch tokens) from a folder with open_clip_config.json and weights.

    OpenFlamingo attends to the patch tokens as the last block leaves them: the open_clip that it was trained with
    normalised the pooled token only. Later releases (2.24 and on) run the final layer norm over all tokens first, unless
    `final_ln_after_pool` is set, which is done here; the pooled token is the same either way. ConfigError when the
    folder cannot be loaded or holds another kind of tower.
    """
    import open_clip
    from open_clip.transformer import VisionTransformer

    try:
        model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")  # an error without weights
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"the CLIP in {folder} cannot be loaded: {lines[0]}", "check the folder") from error
    tower = model.visual
    if not isinstance(tower, VisionTransformer) or tower.attn_pool is not None or tower.pool_type != "tok":
        raise ConfigError(f"the CLIP in {folder} has no vision transformer with a class token", "ViT-L-14 is one")
    tower.output_tokens = True
    tower.final_ln_after_pool = True
    return model, transform, int(tower.conv1.out_channels)
