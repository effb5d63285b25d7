"""The suites of samplers and retrievers catch wrong components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icltool.components.retrievers.random import RandomOptions, RandomRetriever
from icltool.components.retrievers.similarity import SimilarityOptions, SimilarityRetriever
from icltool.components.samplers.image_sim import ImageSimilaritySampler
from icltool.components.samplers.random import RandomSampler
from icltool.contracts import IndexSet, IntArray, QuerySet, ScoringRequest
from icltool.errors import ConfigError, DataError
from icltool.testing import check_retriever, check_sampler


class Sampler(RandomSampler):
    """A right sampler, whose pools `spoil` changes."""

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        return self.spoil(super().sample(index, anchors, size, seed), index, anchors)

    def spoil(self, pools: IntArray, index: IndexSet, anchors: QuerySet) -> Any:
        return pools


class Leaks(Sampler):
    def spoil(self, pools: IntArray, index: IndexSet, anchors: QuerySet) -> IntArray:
        for position, pool in enumerate(pools):
            other = [r for r in index.leaking_rows(anchors, position) if r not in pool]
            pool[:1] = other[-1:]
        return pools


class Repeats(Sampler):
    def spoil(self, pools: IntArray, index: IndexSet, anchors: QuerySet) -> IntArray:
        pools[:, -1:] = pools[:, :1]
        return pools


class GivesIds(Sampler):
    def spoil(self, pools: IntArray, index: IndexSet, anchors: QuerySet) -> IntArray:
        return index.ids[pools]


class NarrowIntegers(Sampler):
    def spoil(self, pools: IntArray, index: IndexSet, anchors: QuerySet) -> Any:
        return pools.astype(np.int32)


class Transposed(Sampler):
    def spoil(self, pools: IntArray, index: IndexSet, anchors: QuerySet) -> IntArray:
        return pools.T


class DependsOnOrder(RandomSampler):
    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        by_position = replace(anchors, ids=np.arange(len(anchors)), same_split=False)
        return super().sample(index, by_position, size, seed)


class DependsOnTheOthers(RandomSampler):
    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        return super().sample(index, anchors, size, seed + len(anchors))


class UsesTheGlobalGenerator(RandomSampler):
    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        return super().sample(index, anchors, size, int(np.random.randint(1000)))


class CountsItsCalls(RandomSampler):
    def __init__(self) -> None:
        self.calls = 0

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        self.calls += 1
        return super().sample(index, anchors, size, seed + self.calls)


class FillsUpWithAnything(RandomSampler):
    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        try:
            return super().sample(index, anchors, size, seed)
        except DataError:
            return np.tile(np.arange(size), (len(anchors), 1))


class UsesHalfOfTheRows(RandomSampler):
    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        if size > len(index) // 2:
            raise DataError(f"{size} are too many")
        return super().sample(index, anchors, size, seed)


class RaisesAnything(RandomSampler):
    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        try:
            return super().sample(index, anchors, size, seed)
        except DataError:
            raise KeyError(size) from None


class MissesTheName(RandomSampler):
    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        try:
            return super().sample(index, anchors, size, seed)
        except DataError:
            raise DataError("too few rows") from None


class NeedsATuple(RandomSampler):
    needs = ("image",)  # type: ignore[assignment]


class UsesWhatItDidNotAskFor(ImageSimilaritySampler):
    needs = frozenset({"text"})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Leaks, "leak its answer"),
        (Repeats, "repeat a row"),
        (GivesIds, r"not ids"),
        (NarrowIntegers, "int64"),
        (Transposed, "shape"),
        (DependsOnOrder, "order of the queries"),
        (DependsOnTheOthers, "which other queries"),
        (UsesTheGlobalGenerator, "differ between two calls"),
        (CountsItsCalls, "differ between two calls"),
        (FillsUpWithAnything, "raised nothing"),
        (UsesHalfOfTheRows, "must be possible"),
        (RaisesAnything, "it raised KeyError"),
        (MissesTheName, "must name the anchor"),
        (NeedsATuple, "frozenset"),
    ],
)
def test_check_sampler_catches(wrong: type[RandomSampler], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_sampler(wrong())


def test_check_sampler_leaves_out_what_was_not_asked_for() -> None:
    with pytest.raises(ValueError, match=r"IndexSet\.image is not filled"):
        check_sampler(UsesWhatItDidNotAskFor)


class Drawn:
    """A right retriever without options."""

    needs: frozenset[str] = frozenset()
    ranked, nested = False, True

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        return RandomRetriever(RandomOptions()).retrieve(index, queries, shots, seed)


class RepeatsAcrossShots(Drawn):
    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        rows = super().retrieve(index, queries, shots, seed)
        rows[:, -1:] = rows[:, :1]
        return rows


class LeaksGroups(SimilarityRetriever):
    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        ungrouped = replace(queries, groups=np.full(len(queries), -1))
        return super().retrieve(index, ungrouped, shots, seed, among=among)


class MasksAcrossTheBatch(Drawn):
    """The published decoder's fault: what one query got is closed to all later ones."""

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        rows = super().retrieve(index, queries, shots, seed)
        taken: set[int] = set()
        for position in range(len(rows)):
            allowed = np.setdiff1d(np.arange(len(index)), index.leaking_rows(queries, position))
            rows[position] = [r for r in [*rows[position], *allowed] if r not in taken][:shots]
            taken.update(rows[position].tolist())
        return rows


class ClaimsNested(Drawn):
    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        return super().retrieve(index, queries, shots, seed)[:, ::-1]


class RankedByWord(Drawn):
    ranked = "yes"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (RepeatsAcrossShots, "repeat a row"),
        (lambda: LeaksGroups(SimilarityOptions()), "leak its answer"),
        (MasksAcrossTheBatch, "depend on"),
        (ClaimsNested, "`nested` is claimed"),
        (RankedByWord, "`ranked` must be"),
        (lambda: RandomRetriever(RandomOptions(fixed=True)), "depend on|differ"),
    ],
)
def test_check_retriever_catches(wrong: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_retriever(wrong)


class First(Drawn):
    """A right arranger: the first rows that it is given; alone, random ones."""

    needs = frozenset({"among"})

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        if among is None:
            return super().retrieve(index, queries, shots, seed)
        return np.array([self.arranged(rows[rows >= 0], shots) for rows in among], np.int64).reshape(-1, shots)

    def arranged(self, rows: IntArray, shots: int) -> IntArray:
        if len(rows) < shots:
            raise DataError(f"{len(rows)} rows are too few")
        return rows[:shots]


class OnlySecond(First):
    def pool_size(self, shots: int) -> int:
        return 4 * shots

    def retrieve(self, *call: Any, among: IntArray | None = None) -> IntArray:
        if among is None:
            raise ConfigError("only after another method")
        return super().retrieve(*call, among=among)


class PadsAsRows(First):
    nested = False

    def arranged(self, rows: IntArray, shots: int) -> IntArray:
        return np.resize(rows, shots)


class PrefersItsOwn(First):
    def retrieve(self, *call: Any, among: IntArray | None = None) -> IntArray:
        return super().retrieve(*call)


class OtherArgument(Drawn):
    needs = frozenset({"examples"})


class UnneededArgument(First):
    needs = frozenset()


class FromTheEnd(First):
    def arranged(self, rows: IntArray, shots: int) -> IntArray:
        return super().arranged(rows, shots)[::-1]


class PoolTooSmall(First):
    def pool_size(self, shots: int) -> int:
        return shots - 1


class Asks(Drawn):
    """A right method that asks the model: of a few rows those under which it is surest of one of the choices."""

    needs = frozenset({"model", "examples"})

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, session: Any, examples: Any
    ) -> Any:
        rows = super().retrieve(index, queries, max(8, shots), seed)
        requests = [
            ScoringRequest(query, (example,))
            for position, query in enumerate(examples.queries(np.arange(len(queries))))
            for example in examples.index(rows[position])
        ]
        best = self.values(session, requests).reshape(rows.shape).argsort(axis=1, kind="stable")
        return np.take_along_axis(rows, best, axis=1)[:, :shots]

    def values(self, session: Any, requests: list[ScoringRequest]) -> Any:
        return np.array([-max(actual.values()) for actual in session.choices(requests)])


class AsksForTheLabel(Asks):
    def values(self, session: Any, requests: list[ScoringRequest]) -> Any:
        return np.array([-score.mean for score in session.target_scores(requests)])


class LooksAtTheLabel(Asks):
    def values(self, session: Any, requests: list[ScoringRequest]) -> Any:
        return np.array([len(request.query.label) % (len(request.demonstrations[0].label)) for request in requests])


class SurestOfAll(Asks):
    """What a chunk's other queries are decides."""

    def values(self, session: Any, requests: list[ScoringRequest]) -> Any:
        actual = super().values(session, requests)
        return np.abs(actual - actual.sum() / max(1, len(actual)))


class Jointly(Asks):
    """A right one, whose answer depends on the queries that are asked about together."""

    joint = True

    def values(self, session: Any, requests: list[ScoringRequest]) -> Any:
        actual = super().values(session, requests)
        return np.abs(actual - actual.sum() / max(1, len(actual)))


class Misspelt(Drawn):
    fingerpint = "0123"


class InPairs(Drawn):
    shot_size = 2

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        if shots % 2:
            raise ConfigError("odd")
        return super().retrieve(index, queries, shots, seed)


class Labels(Drawn):
    """A right one that reads labels and another encoder's embeddings."""

    needs = frozenset({"labels", "image@other", "text"})

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        assert len(index.labels) == len(index.of("image@other")) == len(index.of("text")) == len(index)
        assert len(queries.of("image@other")) == len(queries)
        return super().retrieve(index, queries, shots, seed)


@pytest.mark.parametrize("right", [First, OnlySecond, Asks, Jointly, InPairs, Labels])
def test_check_retriever_lets_pass(right: type[Drawn]) -> None:
    check_retriever(right)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (PadsAsRows, "is an IclError: it raised nothing"),
        (PrefersItsOwn, "are not among those in `among`"),
        (OtherArgument, "takes no argument `examples`"),
        (UnneededArgument, "takes `among`, which is never passed"),
        (FromTheEnd, "`nested` is claimed"),
        (PoolTooSmall, r"`pool_size\(1\)` must be a number from 1 on"),
        (AsksForTheLabel, "called with the query's own label"),
        (LooksAtTheLabel, "depend on the queries' labels"),
        (SurestOfAll, "depend on|differ"),
        (Misspelt, r"did you mean `fingerprint` \(OfDataset\)\?"),
    ],
)
def test_check_retriever_catches_what_is_handed_over_wrongly(wrong: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_retriever(wrong)
