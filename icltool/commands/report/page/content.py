"""What a report page shows, as plain records: gathered from artefacts, drawn without looking at one.

Records refer to one another by their position in the lists of the Page. Nothing here is escaped: text is as the data have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal, TypedDict

from icltool.releases import __version__
from icltool.results.intervals import Interval


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image: `source` is a data address (image/webp), `width` and `height` are its pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An example of the index set. `text` is what its prompt block says of it (question, caption), `label` its answer."""

    id: int
    text: str
    label: str
    images: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A query (of sequences: an anchor) of data set `dataset`; `question` is "" where the task asks none."""

    id: int
    dataset: str
    question: str
    references: tuple[str, ...]
    images: tuple[int, ...] = ()


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


class SeedMeans(TypedDict):
    """Means over `seeds` of a method with a number of shots: by metric "mean", "low", "high", "sd", "min" and "max"."""

    evaluation: int
    method: str
    shots: int
    seeds: list[int]
    metrics: dict[str, dict[str, float | None]]


class TypeFigures(TypedDict):
    """Figures of one setting over the `queries` whose `column` (such as "answer type") has this value."""

    setting: int
    column: str
    value: str
    queries: int | None
    metrics: dict[str, float | None]


class Sample(TypedDict):
    """How many of how many queries are in the gallery."""

    queries: int
    of: int


class Anchors(TypedDict):
    """How many anchors are in the gallery, have their sequences, and are to have them."""

    shown: int
    finished: int
    total: int


class Spread(TypedDict):
    """How a gain is distributed over `anchors`: a histogram, and figures that are None without any anchor."""

    counts: list[int]
    anchors: int
    mean: float | None
    median: float | None
    q05: float | None
    q95: float | None
    positive: float | None


class BeamSpread(Spread):
    """The gain of beam number `beam`, from 1."""

    beam: int


class StepSpread(Spread):
    """The gain of search step number `step`, from 1."""

    step: int


class BeamGains(TypedDict):
    """Gains by beam; histograms share their n + 1 `edges`."""

    edges: list[float]
    beams: list[BeamSpread]


class StepGains(TypedDict):
    """Gains by search step, as `BeamGains`."""

    edges: list[float]
    steps: list[StepSpread]


class Worse(TypedDict):
    """Anchors whose best beam is worse than no demonstrations; `share` is None without any anchor."""

    anchors: int
    worse: int
    share: float | None


class Hub(TypedDict, total=False):
    """An example that is often chosen: how often, by what share of the anchors, its place in `Page.demonstrations`."""

    id: int
    count: int
    share: float
    demonstration: int | None


class Hubness(TypedDict):
    """How unevenly examples are chosen; see `beam_figures.hubness`. `times` are pairs (times chosen, examples)."""

    of: str
    distinct: int
    chosen: int
    pool: int
    index: int | None
    skewness: float | None
    top_share: float | None
    times: list[list[int]]
    top: list[Hub]


class Diversity(TypedDict):
    """Whether beams differ; see `beam_figures.diversity`."""

    sequences: int
    distinct: int
    overlap: float | None
    per_anchor: float | None


class Extra(TypedDict, total=False):
    """What a page has beside settings and results, JSON-ready: the first three of evaluations, the others of sequences."""

    seeds: list[SeedMeans]
    types: list[TypeFigures]
    shown: Sample
    anchors: Anchors
    gains: BeamGains
    steps: StepGains
    worse: Worse
    hubness: Hubness
    diversity: Diversity


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page. `metrics` come in the order in which they are to be shown, `lower_is_better` are some of them."""

    kind: Literal["evaluations", "sequences"]
    title: str
    made: str = field(default_factory=_now)
    version: str = __version__
    sources: tuple[Source, ...]
    metrics: tuple[str, ...]
    settings: tuple[Shown, ...]
    comparisons: tuple[Comparison, ...] = ()
    queries: tuple[Query, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    images: tuple[Thumbnail, ...] = ()
    results: tuple[Result, ...]
    lower_is_better: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()
    extra: Extra = field(default_factory=Extra)
