"""Skips work inside a transformers model whose result is already known or never used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class SharedImages:
    """Projects every image of a batch once, however many rows show it and however many tokens are generated.

    `projections` are the linear layers that turn image features into keys or values. Within `of`, the first call of each
    projects the distinct images in place of its input [B, I x T, width]; its output is spread over the rows.
    """

    def __init__(self, projections: Sequence[torch.nn.Module]) -> None:
        self._images: torch.Tensor | None = None
        self._rows: torch.Tensor | None = None
        self._projected: dict[int, torch.Tensor] = {}
        for projection in projections:
            projection.register_forward_pre_hook(self._narrow)
            projection.register_forward_hook(self._spread)

    @contextmanager
    def of(self, images: torch.Tensor, rows: torch.Tensor) -> Iterator[None]:
        """`images` [n, T, width]; `rows` int64 [B, I] are the indices of the images of each row of the batch."""
        self._images, self._rows = images, rows
        try:
            yield
        finally:
            self._images = self._rows = None
            self._projected = {}

    def _narrow(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if self._images is None:
            return inputs
        return (self._images[:0] if id(module) in self._projected else self._images,)

    def _spread(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if self._rows is None:
            return output
        projected = self._projected.setdefault(id(module), output)
        return projected[self._rows.to(projected.device)].flatten(1, 2)


class TokenSubset:
    """Runs a layer that treats every token separately, such as the last feed-forward layer, on selected tokens only: its
    output for the others is never read.

    Within `of`, the output for the others is zero.
    """

    def __init__(self, layer: torch.nn.Module) -> None:
        self._rows: torch.Tensor | None = None
        self._columns: torch.Tensor | None = None
        self._shape: torch.Size | None = None
        layer.register_forward_pre_hook(self._narrow)
        layer.register_forward_hook(self._spread)

    @contextmanager
    def of(self, rows: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
        """The rows and columns of the selected tokens in the batch, int64 [N] each."""
        self._rows, self._columns = rows, columns
        try:
            yield
        finally:
            self._rows = self._columns = self._shape = None

    def _narrow(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if self._rows is None or self._columns is None:
            return inputs
        states = inputs[0]
        self._shape = states.shape
        return (states[self._rows.to(states.device), self._columns.to(states.device)],)

    def _spread(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if self._rows is None or self._columns is None or self._shape is None:
            return output
        whole = output.new_zeros(self._shape)
        whole[self._rows.to(output.device), self._columns.to(output.device)] = output
        return whole
