"""From image file to vision encoder input, in a form that other processes can run in advance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icltool.components.models.shared.images import cannot_take, read_image

Pixels = NDArray[np.float32]


class ImageReader:
    """Image reference -> float32 [3, H, W]: the image as resized and normalized by a transformers image processor.

    Instances can be pickled. `nested` is for processors that take a list of images per prompt. Raises what `read_image`
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
    """(pixels [B, 3, H, W], mask [B, H, W] with 1 for the image's own): smaller images are padded with zeros on the right
    and below."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pixels = np.zeros((len(images), images[0].shape[0], height, width), np.float32)
    mask = np.zeros((len(images), height, width), np.int64)
    for row, image in enumerate(images):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
        mask[row, : image.shape[1], : image.shape[2]] = 1
    return pixels, mask


def on_device(array: NDArray[np.generic], device: torch.device | str) -> torch.Tensor:
    """The array on the device. For a GPU it is first copied to pinned memory, so that the transfer is asynchronous."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
