"""Methods one after another: what each is asked for and given, and what an answer must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.retrievers.random import RandomOptions, RandomRetriever
from icltool.components.retrievers.similarity import SimilarityOptions, SimilarityRetriever
from icltool.contracts import IndexSet, IntArray, QuerySet, Retriever
from icltool.engine.choosing import Chain, Handed, Part, ask, chain_names
from icltool.errors import ConfigError, DataError, PluginError
from icltool.testing import InMemoryChoosingSession, InMemoryExamples, make_anchors, make_index, make_queries

INDEX = make_index(60)
QUERIES = make_queries(INDEX, range(0, 60, 7))


class Drawn:
    """Rows drawn for each query."""

    needs: frozenset[str] = frozenset()
    ranked, nested = False, True

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        return RandomRetriever(RandomOptions()).retrieve(index, queries, shots, seed)


class Every:
    """Every `step`-th of `pool` rows, in their order."""

    needs: frozenset[str] = frozenset({"among"})
    ranked, nested = False, True

    def __init__(self, step: int = 1, pool: int | None = None) -> None:
        self._step, self._pool = step, pool

    def pool_size(self, shots: int) -> int:
        return max(shots * self._step, self._pool or 0)

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        if among is None:
            raise ConfigError("every: it is for the second place")
        answers = [self.chosen([row for row in rows if row >= 0], shots) for rows in among.tolist()]
        return np.array(answers, dtype=np.int64).reshape(len(queries), shots)

    def chosen(self, rows: list[int], shots: int) -> list[int]:
        if len(rows) < shots:
            raise DataError(f"every: {len(rows)} rows for {shots}")
        spread = rows[:: self._step]
        return (spread + [row for row in rows if row not in spread])[:shots]


def chain(*retrievers: Retriever) -> Chain[Part]:
    return Chain([Part(f"part-{place}", retriever) for place, retriever in enumerate(retrievers)])


def chosen(of: Chain[Part], index: IndexSet, queries: QuerySet, shots: int, handed: Handed | None = None) -> IntArray:
    return of.retrieve(lambda part: (index, queries), shots, 3, handed or Handed())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([make_queries, make_anchors]),
    st.integers(12, 40),
    st.lists(st.integers(0, 11), min_size=1, max_size=6),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(1, 60)), min_size=1, max_size=2),
    st.booleans(),
)
def test_a_chain_is_its_methods_one_by_one(
    make: Callable[..., QuerySet],
    count: int,
    rows: list[int],
    shots: int,
    arrangers: list[tuple[int, int | None]],
    similar: bool,
) -> None:
    index = make_index(count, dim=4)
    queries = make(index, rows)
    first: Any = SimilarityRetriever(SimilarityOptions()) if similar else Drawn()
    later = [Every(step, pool) for step, pool in arrangers]
    left = [count - len(index.leaking_rows(queries, position)) for position in range(len(queries))]
    if min(left) < shots:
        with pytest.raises(DataError):
            chosen(chain(first, *later), index, queries, shots)
        return
    chosen_rows = chosen(chain(first, *later), index, queries, shots)
    numbers = [shots]
    for arranger in reversed(later):
        numbers.insert(0, arranger.pool_size(numbers[0]))
    for position in range(len(queries)):
        alone = queries.take(np.array([position]))
        given_rows = first.retrieve(index, alone, min(numbers[0], left[position]), 3)[0].tolist()
        for arranger, number in zip(later, numbers[1:], strict=True):
            given_rows = arranger.chosen(given_rows, min(number, len(given_rows)))
        assert chosen_rows[position].tolist() == given_rows
        assert not np.isin(chosen_rows[position], index.leaking_rows(queries, position)).any()
        assert len(set(chosen_rows[position].tolist())) == shots


def test_each_is_asked_for_what_the_next_wants() -> None:
    of = chain(Drawn(), Every(2), Every(3))
    assert of.rows_per_part(2) == (12, 6, 2)
    assert not of.nested([1, 2])
    assert of.nested([2])
    assert chain(Drawn(), Every(pool=20)).nested([1, 2, 20])
    assert not chain(Drawn(), Every(pool=20)).nested([1, 21])
    assert chain(Drawn()).nested([1, 2])
    assert chain_names("i2i+ mmr>x") == ("i2i", "mmr", "x")


def test_a_nested_chain_is() -> None:
    of = chain(SimilarityRetriever(SimilarityOptions()), Every(3, pool=24))
    longest = chosen(of, INDEX, QUERIES, 8)
    for shots in (1, 3, 8):
        np.testing.assert_array_equal(chosen(of, INDEX, QUERIES, shots), longest[:, :shots])


class Together(Drawn):
    """Joint: what one query gets depends on how many there are."""

    joint = True

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        return super().retrieve(index, queries, shots, seed + len(queries))


def test_a_joint_method_gets_all_queries_at_once() -> None:
    """Though some have fewer rows left than is wanted: then all get as many as these."""
    few = make_index(24, dim=4)
    queries = make_anchors(few, range(24))
    left = [24 - len(few.leaking_rows(queries, position)) for position in range(24)]
    assert min(left) < max(left)
    of = chain(Together(), Every(pool=24))
    assert of.joint
    assert not chain(Drawn()).joint
    rows = Together().retrieve(few, queries, min(left), 3)
    np.testing.assert_array_equal(chosen(of, few, queries, 3), rows[:, :3])


def test_no_queries_are_no_rows() -> None:
    assert chosen(chain(Drawn(), Every(pool=9)), INDEX, make_queries(INDEX, []), 2).shape == (0, 2)


class Stubborn(Every):
    def retrieve(self, *args: Any, among: IntArray | None = None) -> IntArray:
        assert among is not None
        index, queries = args[:2]
        rows = [np.setdiff1d(np.arange(len(index)), [*index.leaking_rows(queries, q), *a]) for q, a in enumerate(among)]
        return np.array([r[: args[2]] for r in rows])


class Modest(Every):
    def pool_size(self, shots: int) -> int:
        return shots - 1


def test_answers_against_the_contract_name_the_method() -> None:
    with pytest.raises(PluginError, match=r"'part-1' chose example .* not among the rows that it was given"):
        chosen(chain(Drawn(), Stubborn()), INDEX, QUERIES, 2)
    with pytest.raises(PluginError, match=r"'part-1': pool_size\(2\) must be at least 2, got 1"):
        chosen(chain(Drawn(), Modest()), INDEX, QUERIES, 2)
    with pytest.raises(ConfigError, match="second place"):
        chosen(chain(Every()), INDEX, QUERIES, 2)
    with pytest.raises(ConfigError, match="part-1 does not choose among the rows of another method"):
        chain(Every(), AloneOnly())


class AloneOnly(Drawn):
    needs = frozenset({"image"})


class Asking(Drawn):
    needs: frozenset[str] = frozenset({"model", "examples"})

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int, **handed: Any) -> IntArray:
        assert set(handed) == {"session", "examples"}
        [query] = handed["examples"].queries(np.array([len(queries) - 1]))
        assert query.id == queries.ids[-1]
        return super().retrieve(index, queries, shots, seed)


class Misspelt(Drawn):
    needs: frozenset[str] = frozenset({"lables"})


def test_what_is_needed_is_handed_over_or_named() -> None:
    examples = InMemoryExamples(INDEX, QUERIES)
    session = InMemoryChoosingSession((), frozenset({"model"}), "poison")
    part = Part("asking", Asking())
    ask(part, INDEX, QUERIES, 2, 0, Handed(examples=examples, session=session))
    with pytest.raises(ConfigError, match="asking needs model, which this command does not provide"):
        ask(part, INDEX, QUERIES, 2, 0, Handed(examples=examples))
    with pytest.raises(ConfigError, match="asking needs examples and model"):
        ask(part, INDEX, QUERIES, 2, 0, Handed())
    with pytest.raises(PluginError, match="'part-0' needs 'lables'") as caught:
        chain(Misspelt())
    assert "did you mean 'labels'?" in str(caught.value.hint)


def test_examples_are_those_of_the_queries_that_are_asked_about() -> None:
    """Where queries are grouped by how many rows they have left, too."""
    few = make_index(24, dim=4)
    queries = make_anchors(few, range(24))
    handed = Handed(examples=InMemoryExamples(few, queries), session=InMemoryChoosingSession((), frozenset(), ""))
    chosen(chain(Asking(), Every(pool=24)), few, queries, 2, handed)
