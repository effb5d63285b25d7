"""What stands between an image file and a vision encoder, so that other processes can do it ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icltool.components.models.shared.images import cannot_take, read_image

Pixels = NDArray[np.float32]


class ImageReader:
    """Image reference -> float32 [3, H, W]: the image as an image processor of transformers resizes and normalizes it.

    It can be pickled. `nested` is for processors that take a list of images for each prompt. Raises what `read_image`
    raises, and DataError for an image that the processor cannot take.
    """

    def __init__(self, processor: Callable[..., Any], nested: bool = False) -> None:
        self._processor = processor
        self._nested = nested

    def __call__(self, reference: str) -> Pixels:
        image = read_image(reference)
        try:
            prepared = self._processor([[image]] if self._nested else [image], return_tensors="np")
        except ValueError as error:
            raise cannot_take(reference, image, error) from error
        values = np.asarray(prepared["pixel_values"] if hasattr(prepared, "keys") else prepared, dtype=np.float32)
        return np.ascontiguousarray(values.reshape(values.shape[-3:]))


def padded(images: Sequence[Pixels]) -> tuple[Pixels, NDArray[np.int64]]:
    """(pixels [B, 3, H, W], 1 where they are of the image [B, H, W]): smaller images are filled up with zeros on the right
    and below."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pixels = np.zeros((len(images), images[0].shape[0], height, width), np.float32)
    mask = np.zeros((len(images), height, width), np.int64)
    for row, image in enumerate(images):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
        mask[row, : image.shape[1], : image.shape[2]] = 1
    return pixels, mask


def on_device(array: NDArray[np.generic], device: torch.device | str) -> torch.Tensor:
    """The array on the device. On its way to a GPU it is copied to pinned memory, so that nobody waits for the transfer."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
