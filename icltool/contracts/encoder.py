"""Encoders turn images and texts into the vectors that retrieval and the selector work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from icltool.contracts.arrays import FloatArray

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Encoder(Protocol):
    """Maps images and texts into one space; cosine is its similarity. `dim` is D."""

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
class TradesTimeForMemory(Protocol):
    """A tower that can compute its activations twice to hold fewer of them."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switches that on or off; features and gradients stay the same."""
        ...


@runtime_checkable
class TrainableEncoder(Encoder, Protocol):
    """Ability of an encoder whose towers can be trained along with a selector. `modality` is "image" or "text"."""

    def tower(self, modality: str) -> nn.Module:
        """The module that maps `preprocessor`'s tensors [n, ...] to features [n, D], not normalised.

        It gives what `encode_images` or `encode_texts` gives. It shares the encoder's weights, holds only parameters that
        its features depend on, and needs no gradients until it is told to. It may be a TradesTimeForMemory.
        """
        ...

    def preprocessor(self, modality: str) -> Callable[[Sequence[str]], Tensor]:
        """A function from paths of images, or texts, to the tensor [n, ...] that the tower reads.

        Threads call it at the same time. Raises DataError naming the file that cannot be read.
        """
        ...

    def architecture(self) -> Mapping[str, object]:
        """What decides the towers' shapes and the preprocessing, JSON-ready: equal for encoders whose trained weights
        can stand for one another."""
        ...

    def build_options(self) -> Mapping[str, object]:
        """Options, JSON-ready, with which the component of this name is built with the same architecture, to be filled
        with trained weights; the pretrained weights need not be on that machine where the encoder can do without."""
        ...
