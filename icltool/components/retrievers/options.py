"""Checks of the options that several retrieval methods share."""

from __future__ import annotations

from typing import Any

from icltool.errors import ConfigError

KINDS = ("image", "text")


def embedding_kinds(method: str, query: Any, demonstration: Any) -> frozenset[str]:
    """What a method needs that compares the query's `query` with the demonstrations' `demonstration` embedding.

    Raises ConfigError unless both are "image" or "text".
    """
    for name, value in (("query", query), ("demonstration", demonstration)):
        if value not in KINDS:
            raise ConfigError(f"{method}: {name}={value!r} is no embedding", "use 'image' or 'text'")
    return frozenset({query, demonstration})


def whole_number(method: str, name: str, value: Any, least: int = 1) -> int:
    """`value`, which must be a whole number of at least `least`. ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{method}: {name}={value!r} is no whole number from {least} up", f"{name}=64, say")
    return value


def number(method: str, name: str, value: Any, low: float, high: float, *, above: bool = False) -> float:
    """`value` as a float between `low` and `high`, above `low` with `above`. ConfigError for anything else."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not fits or (above and value == low):
        first = f"above {low:g}" if above else f"from {low:g}"
        raise ConfigError(
            f"{method}: {name}={value!r} is no number {first} up to {high:g}", "give a number in this range"
        )
    return float(value)
