"""The tokens that several prompts of a call share, and the order in which they are computed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from icltool.contracts import PromptTokens

#: Tokens that a further forward pass must save: below it the pass costs more than computing them in every prompt.
WORTH = 64


@dataclass(frozen=True)
class Segment:
    """Tokens [start, end) that all prompts `rows` share, with the same prefix; computed once, for prompt rows[0]."""

    start: int
    end: int
    rows: tuple[int, ...]
    inner: tuple[Segment, ...] = field(default=())

    @property
    def saved(self) -> int:
        """The number of tokens that need not be computed, including those of inner segments."""
        return (len(self.rows) - 1) * (self.end - self.start) + sum(s.saved for s in self.inner)


def shared_segments(
    prompts: Sequence[PromptTokens], stored: Sequence[int], ends: Sequence[int], worth: int = WORTH
) -> list[list[Segment]]:
    """Segments by level: those of a level follow stored tokens, or segments of earlier levels.

    `stored` is the number of stored tokens of each prompt, `ends` the end of the part of each prompt that may be shared. A
    segment that saves fewer than `worth` tokens, inner segments included, is not shared.
    """
    top = _segments(prompts, [i for i in range(len(prompts)) if stored[i] < ends[i]], stored, ends)
    levels: list[list[Segment]] = []
    level = [s for s in top if s.saved >= worth]
    while level:
        levels.append(level)
        level = [inner for segment in level for inner in segment.inner if inner.saved >= worth]
    return levels


def _segments(
    prompts: Sequence[PromptTokens], rows: Sequence[int], starts: Sequence[int], ends: Sequence[int]
) -> list[Segment]:
    """Segments that begin where each prompt's stored tokens end, for prompts whose stored tokens are the same."""
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    for row in rows:
        groups.setdefault(prompts[row].units[: starts[row] + 1], []).append(row)
    return [_grown(prompts, group, starts[group[0]], ends) for group in groups.values() if len(group) > 1]


def _grown(prompts: Sequence[PromptTokens], rows: Sequence[int], start: int, ends: Sequence[int]) -> Segment:
    """The longest segment of these prompts, which agree in their first start + 1 units, and those inside it."""
    first = prompts[rows[0]].units
    end = min(ends[row] for row in rows)
    for row in rows[1:]:
        units = prompts[row].units
        if units[start:end] != first[start:end]:
            end = next(k for k in range(start, end) if units[k] != first[k])
    groups: dict[Hashable, list[int]] = {}
    for row in rows:
        if ends[row] > end:
            groups.setdefault(prompts[row].units[end], []).append(row)
    inner = tuple(_grown(prompts, group, end, ends) for group in groups.values() if len(group) > 1)
    return Segment(start, end, tuple(rows), inner)
