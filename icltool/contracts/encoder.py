"""Encoders turn images and texts into the vectors that retrieval and the selector work on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import FloatArray


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
