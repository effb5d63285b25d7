"""The ways of scoring that are compared, each timed from the first prompt to the last beam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from icltool.contracts import GenerationOptions, ScoringRequest, ScoringSession, Valuation
from icltool.engine.beam import BeamSearch, SearchOptions
from icltool.engine.session import open_session
from icltool.scorers.infoscore import InfoScore
from tests.benchmarks.engine.data import Run
from tests.benchmarks.engine.measure import PeakMemory, timed
from tests.benchmarks.engine.naive import Ids, NaiveScorer, naive_search

IMAGE_CACHE_BYTES = 1 << 30
#: Counters of the engine's session, by the names of this benchmark.
COUNTERS = {"computed": "tokens_computed", "scored": "tokens_scored", "padded": "tokens_padded"}


@dataclass(frozen=True)
class Setting:
    """What is searched, the same for all sides."""

    order: str
    shots: int
    beams: int
    batch_size: int


@dataclass
class Side:
    """What one way took and found: `values` by anchor and demonstration ids, `beams` by anchor, best first.

    `encoded` counts image encodings. `counters` are the engine's own, as far as it keeps them.
    """

    seconds: float
    peak_bytes: int
    values: dict[int, dict[Ids, float]]
    beams: dict[int, list[Ids]]
    encoded: int
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def prompts(self) -> int:
        return sum(map(len, self.values.values()))

    @property
    def rate(self) -> float:
        """Prompts per second."""
        return self.prompts / self.seconds


class RecordingScore(InfoScore):
    """InfoScore that notes the first value of every sequence: later ones settle ties, prompt by prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, dict[Ids, float]] = {}

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        valued = super().evaluate(session, requests)
        for request, value in zip(requests, valued.values, strict=True):
            ids = tuple(e.id for e in request.demonstrations)
            self.values.setdefault(request.query.id, {}).setdefault(ids, float(value))
        return valued


def engine(adapter: Any, run: Run, setting: Setting) -> Side:
    """icltool's own search in a fresh session."""
    scorer, peak = RecordingScore(), PeakMemory(adapter.device)
    options = SearchOptions(setting.shots, setting.beams, setting.order)  # type: ignore[arg-type]

    def search() -> tuple[Any, list[Any]]:
        session = open_session("caption", adapter, GenerationOptions(20), setting.batch_size, IMAGE_CACHE_BYTES)
        return session, _searched(BeamSearch(scorer, session, options), run)

    peak.start()
    (session, results), seconds = timed(adapter.device, search)
    return Side(
        seconds,
        peak.stop(),
        scorer.values,
        {r.query_id: [tuple(map(int, ids)) for ids in r.icd_ids] for r in results},
        session.cache.encoded,
        {name: int(getattr(session, kept)) for name, kept in COUNTERS.items() if hasattr(session, kept)},
    )


def _searched(search: Any, run: Run) -> list[Any]:
    """Results of all anchors: several at once where the engine can do that."""
    if hasattr(search, "search_many"):
        return list(search.search_many(run.anchors))
    return [search.search(query, pool) for query, pool in run.anchors]


def naive(adapter: Any, run: Run, setting: Setting) -> Side:
    """Every prompt whole, every image anew."""
    side = _naive(adapter, run, setting, None)
    side.encoded = sum(len(ids) + 1 for values in side.values.values() for ids in values)
    return side


def cached(adapter: Any, run: Run, setting: Setting, of: Run) -> Side:
    """Every prompt whole, images encoded once. `run` is a part of the run `of`, whose images are shared by its anchors: of
    the time to encode them all it is charged its part."""
    images = of.images
    features, encoding = timed(
        adapter.device, lambda: dict(zip(images, adapter.image_features(images, setting.batch_size), strict=True))
    )
    side = _naive(adapter, run, setting, features)
    side.seconds += encoding * len(run.anchors) / len(of.anchors)
    side.encoded = len(images)
    return side


def _naive(adapter: Any, run: Run, setting: Setting, features: dict[str, torch.Tensor] | None) -> Side:
    scorer, peak = NaiveScorer(adapter, setting.batch_size, features), PeakMemory(adapter.device)
    peak.start()
    results, seconds = timed(
        adapter.device,
        lambda: {
            query.id: naive_search(scorer, adapter, query, pool, setting.shots, setting.beams, setting.order)
            for query, pool in run.anchors
        },
    )
    return Side(
        seconds,
        peak.stop(),
        {anchor: result.values for anchor, result in results.items()},
        {anchor: result.beams for anchor, result in results.items()},
        0,
    )


def warm_up(adapter: Any, run: Run, setting: Setting) -> None:
    """One small prompt on every side, so that none pays for what libraries set up on first use."""
    query, pool = run.anchors[0]
    small = Run(((query, pool[:2]),))
    one = Setting(setting.order, 1, 1, 2)
    engine(adapter, small, one)
    naive(adapter, small, one)
