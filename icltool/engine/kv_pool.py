"""Keys and values of single tokens, in slots from which any prompt can gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from icltool.contracts import KeysValues


class KeyValuePool:
    """A table of keys and one of values per layer of the model, [slots, heads, head width].

    The tables are allocated when the shapes of the first keys and values are known, with as many slots as `byte_limit` allows.
    Slot 0 holds zeros, for padding. Indices are built on the CPU and copied without waiting for the device.
    """

    def __init__(self, byte_limit: int) -> None:
        self._limit = byte_limit
        self._tables: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._free: list[int] = []
        self.capacity = 0

    @property
    def ready(self) -> bool:
        """False until `prepare` has seen keys and values."""
        return bool(self._tables)

    @property
    def free(self) -> int:
        """The number of free slots."""
        return len(self._free)

    def prepare(self, example: KeysValues) -> None:
        """Allocates the tables for keys and values like these, [B, heads, T, head width] in each layer.

        If memory does not suffice, torch's error reaches the caller, and the next attempt allocates half as much.
        """
        if self._tables:
            return
        token = sum(t.shape[1] * t.shape[3] * t.element_size() for pair in example for t in pair)
        self.capacity = max(0, self._limit // token - 1)
        self._limit //= 2  # for another try, should memory not suffice for this one
        self._tables = [(self._table(keys), self._table(values)) for keys, values in example]
        self._free = list(range(self.capacity, 0, -1))

    def take(self, count: int) -> list[int]:
        """Reserves `count` free slots. Raises ValueError if there are fewer."""
        if count > len(self._free):
            raise ValueError(f"{count} slots of {len(self._free)}")
        if not count:
            return []
        slots = self._free[-count:][::-1]
        del self._free[-count:]
        return slots

    def give(self, slots: Sequence[int]) -> None:
        """Releases slots."""
        self._free += slots

    def write(self, slots: Sequence[int], keys_values: KeysValues, rows: Sequence[int], columns: Sequence[int]) -> None:
        """Stores in each slot the keys and values of one token, given by a row and a column of the batch."""
        if not slots:
            return
        index = _Index([list(slots), list(rows), list(columns)])
        for tables, pair in zip(self._tables, keys_values, strict=True):
            for table, batch in zip(tables, pair, strict=True):
                places, row, column = index.on(batch.device)
                table.index_copy_(0, places, batch[row, :, column])

    def gather(self, rows: Sequence[Sequence[int]]) -> KeysValues:
        """Keys and values [B, heads, T, head width] of these slots in each layer, padded with zeros on the left to the longest
        row. A layer is gathered on access.
        """
        return _Gathered(self._tables, rows)

    def _table(self, like: torch.Tensor) -> torch.Tensor:
        table = torch.empty(
            (self.capacity + 1, like.shape[1], like.shape[3]), dtype=like.dtype, device=like.device
        )  # on the CPU memory is taken only where it is written to
        table[0] = 0
        return table


class _Index:
    """One table of integers, on every device that asks for it."""

    def __init__(self, numbers: Sequence[Sequence[int]]) -> None:
        self._here = torch.tensor(numbers, dtype=torch.long)
        self._there: dict[Any, torch.Tensor] = {}

    def on(self, device: torch.device) -> torch.Tensor:
        if device.type != "cuda":
            return self._here
        if device not in self._there:
            self._there[device] = self._here.pin_memory().to(device, non_blocking=True)
        return self._there[device]


class _Gathered(Sequence[tuple[torch.Tensor, torch.Tensor]]):
    """The result of `KeyValuePool.gather`: only one layer's copies need memory at a time."""

    def __init__(self, tables: Sequence[tuple[torch.Tensor, torch.Tensor]], rows: Sequence[Sequence[int]]) -> None:
        longest = max(len(row) for row in rows)
        self._tables = tables
        self._index = _Index([[0] * (longest - len(row)) + list(row) for row in rows])

    def __len__(self) -> int:
        return len(self._tables)

    def __getitem__(self, layer: Any) -> Any:
        keys, values = self._tables[layer]
        return _picked(keys, self._index.on(keys.device)), _picked(values, self._index.on(values.device))


def _picked(table: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """[B, heads, T, head width] of slots [B, T]."""
    flat = table.index_select(0, slots.flatten())
    return flat.view(*slots.shape, *table.shape[1:]).transpose(1, 2)
