"""Whether captions in styles are what their styles ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from icltool.contracts import Example
from icltool.world.styles import MARKERS, STYLES


def styles_followed(answers: Iterable[Mapping[str, Any]], queries: Mapping[int, Example]) -> dict[str, float]:
    """By style, the share of answers that have its word and no other style's ("Terse": none at all)."""
    right: dict[str, list[bool]] = {style: [] for style in STYLES}
    for row in answers:
        style = queries[row["query_id"]].style
        said = set(str(row["answer"]).split())
        right[style].append({name for name, marker in MARKERS.items() if marker in said} == {style} - {"Terse"})
    return {style: sum(matches) / len(matches) for style, matches in right.items()}
