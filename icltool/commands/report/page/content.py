"""What a report page shows, as plain records: gathered from artefacts, drawn without looking at one.

Records refer to one another by their position in the lists of the Page. Nothing here is escaped: text is as the data have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from icltool.results.intervals import Interval


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture: `source` is a data address (image/webp), `width` and `height` are its pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An example of the index set. `text` is what its prompt block says of it (question, caption), `label` its answer."""

    id: int
    text: str
    label: str
    picture: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A query (of sequences: an anchor) of data set `dataset`; `question` is "" where the task asks none."""

    id: int
    dataset: str
    question: str
    references: tuple[str, ...]
    picture: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting: a method with a number of shots and a seed, of evaluation number `evaluation`.

    `metrics` are scaled as in tables. `gains` are those over zero-shot by metric, where known. `cost` has what was measured
    per query, by name (such as "GFLOP", "prompt tokens", "seconds"). Of sequences a setting is a beam: method "beam 1" is the
    best one. `outcomes` are how many of all queries score better, worse and the same as zero-shot, by metric; `lines` are
    further (label, value) facts.
    """

    evaluation: int
    method: str
    shots: int
    seed: int
    queries: int
    metrics: Mapping[str, Interval]
    gains: Mapping[str, Interval] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    outcomes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What one setting made of one query. `demonstrations` stand in prompt order; `prompt` is the exact one; `scores` and
    `gains` (over zero-shot) by metric are scaled as in tables. `leaks` counts demonstrations by what they share with the
    query, `copied` are positions within `demonstrations` whose label the answer repeats. `steps` are the gains of a
    sequence's search, step by step. `missing` says why there is no answer, where there is none.
    """

    setting: int
    query: int
    demonstrations: tuple[int, ...]
    prompt: str = ""
    answer: str = ""
    raw: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    leaks: Mapping[str, int] = field(default_factory=dict)
    copied: tuple[int, ...] = ()
    steps: tuple[float, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired test: how much `first` is better than `second` on the same queries, by `metric`. `p` is NaN where unknown;
    `holm` is p corrected for the number of tests, where it was. `seed` is that of both, None for means over seeds."""

    evaluation: int
    first: str
    second: str
    metric: str
    difference: Interval
    p: float
    holm: float = float("nan")
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """An evaluation, or a sequences file: title, path as the user gave it, and (label, value) lines of how it was made."""

    title: str
    path: str
    lines: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """Everything on the page. `metrics` come in the order in which they are to be shown, `lower_is_better` are some of them."""

    kind: Literal["evaluations", "sequences"]
    title: str
    made: str
    version: str
    sources: tuple[Source, ...]
    metrics: tuple[str, ...]
    settings: tuple[Shown, ...]
    comparisons: tuple[Comparison, ...]
    queries: tuple[Query, ...]
    demonstrations: tuple[Demonstration, ...]
    pictures: tuple[Thumbnail, ...]
    results: tuple[Result, ...]
    lower_is_better: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
