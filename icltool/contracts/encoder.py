"""Encoders map images and texts to the vectors that retrievers and selectors use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from icltool.contracts.arrays import FloatArray

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Encoder(Protocol):
    """Maps images and texts into one space, compared by cosine similarity. `dim` is D. See HasModalities for an encoder of one
    of them."""

    name: str
    dim: int

    def fingerprint(self) -> str:
        """A short hash of the weights and the preprocessing."""
        ...

    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        """float32 [n, D], not normalised. Raises DataError naming the file that cannot be read."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """float32 [n, D], not normalised."""
        ...


@runtime_checkable
class HasModalities(Protocol):
    """Ability of an encoder of images only, or of texts only. Its other method raises ConfigError."""

    @property
    def modalities(self) -> Collection[str]:
        """{"image"} or {"text"}."""
        ...


def modalities_of(encoder: Encoder) -> frozenset[str]:
    """What an encoder encodes: "image", "text" or both."""
    return frozenset(encoder.modalities) if isinstance(encoder, HasModalities) else frozenset({"image", "text"})


@runtime_checkable
class TradesTimeForMemory(Protocol):
    """A tower that can compute its activations twice to hold fewer of them."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turns this on or off; features and gradients stay the same."""
        ...


@runtime_checkable
class TrainableEncoder(Encoder, Protocol):
    """Ability of an encoder whose towers can be trained along with a selector. `modality` is "image" or "text"."""

    def tower(self, modality: str) -> nn.Module:
        """The module that maps `preprocessor`'s tensors [n, ...] to features [n, D], not normalised.

        Its results equal those of `encode_images` or `encode_texts`. It shares the encoder's weights, holds only parameters
        that its features depend on, and has gradients disabled until the caller enables them. It may be a TradesTimeForMemory.
        """
        ...

    def preprocessor(self, modality: str) -> Callable[[Sequence[str]], Tensor]:
        """A function from paths of images, or texts, to the tensor [n, ...] that the tower reads.

        It must be thread-safe. Raises DataError naming the file that cannot be read.
        """
        ...

    def architecture(self) -> Mapping[str, object]:
        """What determines the towers' shapes and the preprocessing, as JSON values: equal for encoders whose trained weights
        are interchangeable."""
        ...

    def build_options(self) -> Mapping[str, object]:
        """Options, as JSON values, that build a component of this name with the same architecture, to be filled with trained
        weights. The pretrained weights need not be on that machine if the encoder can be built without them."""
        ...
