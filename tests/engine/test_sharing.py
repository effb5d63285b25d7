"""What prompts share, against a trie of all their beginnings."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, strategies as st

from icltool.contracts import PromptTokens
from icltool.engine.sharing import Segment, shared_segments

TEXTS = st.lists(st.text("ab", min_size=1, max_size=8), max_size=8)


def prompt(text: str) -> PromptTokens:
    return PromptTokens(tuple(map(ord, text)), tuple(text), len(text), 0, ())


def stored_beginnings(texts: list[str], stored: list[str]) -> list[int]:
    """How many characters of each text are in the trie of `stored`."""
    known = {text[:k] for text in stored for k in range(1, len(text) + 1)}
    return [next((k for k in range(len(text)) if text[: k + 1] not in known), len(text)) for text in texts]


@given(TEXTS, TEXTS, st.data())
def test_levels_cover_what_several_prompts_share_and_nothing_else(
    texts: list[str], stored: list[str], data: st.DataObject
) -> None:
    ends = [data.draw(st.integers(0, len(text))) for text in texts]
    starts = [min(k, end) for k, end in zip(stored_beginnings(texts, stored), ends, strict=True)]
    levels = shared_segments([prompt(t) for t in texts], starts, ends, worth=1)
    counts = Counter(
        text[: k + 1] for text, start, end in zip(texts, starts, ends, strict=True) for k in range(start, end)
    )
    shared = {path for path, count in counts.items() if count > 1}
    covered = [texts[s.rows[0]][: k + 1] for level in levels for s in level for k in range(s.start, s.end)]
    assert sorted(covered) == sorted(shared)  # each once
    there = set()
    for level in levels:
        for segment in level:
            first = texts[segment.rows[0]][: segment.start]
            assert segment.start == starts[segment.rows[0]] or first in there, "a level follows those before it"
        there |= {texts[s.rows[0]][: s.end] for s in level}
    _check_rows(texts, ends, levels)
    saved = sum(s.saved for s in levels[0]) if levels else 0
    assert saved == sum(counts[path] - 1 for path in shared)


def _check_rows(texts: list[str], ends: list[int], levels: list[list[Segment]]) -> None:
    for level in levels:
        for segment in level:
            beginning = texts[segment.rows[0]][: segment.end]
            same = [k for k, text in enumerate(texts) if text.startswith(beginning) and ends[k] >= segment.end]
            assert list(segment.rows) == same


@given(TEXTS, st.integers(1, 20))
def test_what_saves_too_little_is_left_to_the_prompts(texts: list[str], worth: int) -> None:
    ends = [len(text) for text in texts]
    prompts, starts = [prompt(t) for t in texts], [0] * len(texts)
    everything = [s for level in shared_segments(prompts, starts, ends, 1) for s in level]
    chosen = [s for level in shared_segments(prompts, starts, ends, worth) for s in level]
    assert chosen == [s for s in everything if s.saved >= worth]
