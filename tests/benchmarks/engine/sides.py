"""The ways of scoring that are compared, each timed from the first prompt to the last beam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from icltool.components.scorers.infoscore import InfoScore, InfoScoreOptions
from icltool.contracts import GenerationOptions, QueryResult, ScoringRequest, ScoringSession, Valuation
from icltool.engine.beam import BeamSearch, ConstructOrder, SearchOptions, anchors_to_fill
from icltool.engine.opening import open_session, prefix_bytes
from icltool.engine.session import Session
from tests.benchmarks.engine.data import Run
from tests.benchmarks.engine.measure import PeakMemory, timed
from tests.benchmarks.engine.naive import Ids, NaiveScorer, naive_search

IMAGE_CACHE_BYTES = 1 << 30
#: Counters of the engine's session, by the names of this benchmark.
COUNTERS = {"computed": "tokens_computed", "scored": "tokens_scored", "padded": "tokens_padded"}


@dataclass(frozen=True)
class Setting:
    """What is searched, the same for all sides."""

    order: ConstructOrder
    shots: int
    beams: int
    batch_size: int


@dataclass
class Side:
    """What one way took and found: `values` by anchor and demonstration ids, `beams` by anchor, best first.

    `cpu_seconds` is what the process itself was given of all cores: other processes do not count in it. `encoded` counts
    image encodings. `counters` are the engine's own, as far as it keeps them.
    """

    seconds: float
    cpu_seconds: float
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
        super().__init__(InfoScoreOptions())
        self.values: dict[int, dict[Ids, float]] = {}

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        valued = super().evaluate(session, requests)
        for request, value in zip(requests, valued.values, strict=True):
            ids = tuple(e.id for e in request.demonstrations)
            self.values.setdefault(request.query.id, {}).setdefault(ids, float(value))
        return valued


def engine(adapter: Any, run: Run, setting: Setting) -> Side:
    """icltool's own search in a fresh session, anchors in groups as `icltool generate` takes them."""
    scorer, peak = RecordingScore(), PeakMemory(adapter.device)

    def search() -> tuple[Session, list[QueryResult]]:
        with open_session(
            "caption",
            adapter,
            GenerationOptions(20),
            setting.batch_size,
            IMAGE_CACHE_BYTES,
            prefix_bytes=prefix_bytes(None, adapter),
            image_workers="auto",
        ) as session:
            return session, _searched(scorer, session, run, setting)

    peak.start()
    (session, results), seconds, cpu_seconds = timed(adapter.device, search)
    counters = {name: getattr(session, counter) for name, counter in COUNTERS.items()}
    return Side(
        seconds,
        cpu_seconds,
        peak.stop(),
        scorer.values,
        {r.query_id: [tuple(map(int, ids)) for ids in r.icd_ids] for r in results},
        session.cache.encoded if session.cache else 0,
        {name: count for name, count in counters.items() if count is not None},
    )


def _searched(scorer: RecordingScore, session: Session, run: Run, setting: Setting) -> list[QueryResult]:
    options = SearchOptions(setting.shots, setting.beams, setting.order)
    search = BeamSearch(scorer, session, options)
    size = anchors_to_fill(session.largest_batch, options, len(run.anchors[0][1]))
    groups = [run.anchors[low : low + size] for low in range(0, len(run.anchors), size)]
    session.expect(example for query, pool in run.anchors for example in (query, *pool))
    return [result for group in groups for result in search.search_many(group)]


def naive(adapter: Any, run: Run, setting: Setting) -> Side:
    """Every prompt whole, every image anew."""
    side = _naive(adapter, run, setting, None)
    side.encoded = sum(len(ids) + 1 for values in side.values.values() for ids in values)
    return side


def cached(adapter: Any, run: Run, setting: Setting, of: Run) -> Side:
    """Every prompt whole, images encoded once. `run` is a part of the run `of`, whose images are shared by its anchors: of
    the time to encode them all it is charged its part."""
    images = of.images
    features, encoding, cpu_encoding = timed(
        adapter.device, lambda: dict(zip(images, adapter.image_features(images, setting.batch_size), strict=True))
    )
    side = _naive(adapter, run, setting, features)
    side.seconds += encoding * len(run.anchors) / len(of.anchors)
    side.cpu_seconds += cpu_encoding * len(run.anchors) / len(of.anchors)
    side.encoded = len(images)
    return side


def _naive(adapter: Any, run: Run, setting: Setting, features: dict[str, torch.Tensor] | None) -> Side:
    scorer, peak = NaiveScorer(adapter, setting.batch_size, features), PeakMemory(adapter.device)
    peak.start()
    results, seconds, cpu_seconds = timed(
        adapter.device,
        lambda: {
            query.id: naive_search(scorer, adapter, query, pool, setting.shots, setting.beams, setting.order)
            for query, pool in run.anchors
        },
    )
    return Side(
        seconds,
        cpu_seconds,
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
