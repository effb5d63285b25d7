"""The suites of samplers and retrieval methods catch wrong components."""

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
from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.errors import DataError
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


class RepeatsAcrossShots(RandomRetriever):
    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        rows = super().retrieve(index, queries, shots, seed)
        rows[:, -1:] = rows[:, :1]
        return rows


class LeaksGroups(SimilarityRetriever):
    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        return super().retrieve(index, replace(queries, groups=np.full(len(queries), -1)), shots, seed)


class MasksAcrossTheBatch(RandomRetriever):
    """The published decoder's fault: what one query got is closed to all later ones."""

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        rows = super().retrieve(index, queries, shots, seed)
        taken: set[int] = set()
        for position in range(len(rows)):
            allowed = np.setdiff1d(np.arange(len(index)), index.leaking_rows(queries, position))
            rows[position] = [r for r in [*rows[position], *allowed] if r not in taken][:shots]
            taken.update(rows[position].tolist())
        return rows


class ClaimsNested(RandomRetriever):
    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        return super().retrieve(index, queries, shots, seed)[:, ::-1]


class RankedByWord(RandomRetriever):
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
