"""Episodes: the query's own class and others of its support set, alternating."""

from __future__ import annotations

import numpy as np
import pytest

from icltool.components.retrievers.episode import EpisodeOptions, EpisodeRetriever
from icltool.contracts import NO_IMAGE, IndexSet, QuerySet
from icltool.errors import ConfigError, DataError


def index(episodes: int = 2, classes: int = 3, each: int = 4) -> IndexSet:
    ids = np.arange(episodes * classes * each)
    labels = tuple("abcde"[i % classes] for i in ids.tolist())
    return IndexSet(ids, ids + 1000, np.full(len(ids), -1), labels=labels)


def queries(own: tuple[str, ...], whole: IndexSet, each: int = 12) -> QuerySet:
    """Query q is of class own[q], with the q-th `each` examples as its support set, those of its class first."""
    support = []
    for q, name in enumerate(own):
        ids = range(q * each, (q + 1) * each)
        support.append([*sorted(ids, key=lambda i: (whole.labels[i] != name, i)), NO_IMAGE])
    number = np.arange(len(own))
    return QuerySet(number, number, np.full(len(own), -1), support=np.array(support))


@pytest.mark.parametrize(("ways", "each"), [(2, 1), (2, 4), (3, 2)])
def test_classes_alternate_and_the_own_is_among_them(ways: int, each: int) -> None:
    whole = index()
    asked = queries(("b", "c"), whole)
    rows = EpisodeRetriever(EpisodeOptions(ways=ways)).retrieve(whole, asked, ways * each, 3)
    for q, name in enumerate(("b", "c")):
        shown = [whole.labels[row] for row in rows[q]]
        assert name in shown
        assert shown == shown[:ways] * each
        assert len(set(shown)) == ways
        assert len(set(rows[q].tolist())) == ways * each
        assert all(row // 12 == q for row in rows[q].tolist())


def test_draws_depend_on_seed_and_query_alone() -> None:
    whole = index()
    asked, retriever = queries(("b", "c"), whole), EpisodeRetriever(EpisodeOptions())
    rows = retriever.retrieve(whole, asked, 4, 3)
    assert rows.tolist() == retriever.retrieve(whole, asked, 4, 3).tolist()
    assert retriever.retrieve(whole, asked.take(np.array([1])), 4, 3).tolist() == rows[1:].tolist()
    assert any(retriever.retrieve(whole, asked, 4, seed).tolist() != rows.tolist() for seed in range(4, 9))
    firsts = {whole.labels[retriever.retrieve(whole, asked, 2, seed)[0, 0]] for seed in range(20)}
    assert len(firsts) == 3  # the order of the classes is drawn, too


def test_a_leaking_image_is_not_shown() -> None:
    whole = index()
    asked = queries(("a",), whole)
    asked = QuerySet(asked.ids, np.array([1000]), asked.groups, support=asked.support)  # the image of example 0
    assert all(0 not in EpisodeRetriever(EpisodeOptions()).retrieve(whole, asked, 6, seed)[0] for seed in range(5))
    with pytest.raises(DataError, match="query 0: its support set does not hold 4 of each of 2 classes"):
        EpisodeRetriever(EpisodeOptions()).retrieve(whole, asked, 8, 0)


def test_what_cannot_be() -> None:
    whole = index()
    with pytest.raises(ConfigError, match="3 cannot be divided") as caught:
        EpisodeRetriever(EpisodeOptions()).retrieve(whole, queries(("a",), whole), 3, 0)
    assert "ask for 2" in str(caught.value)
    plain = QuerySet(np.array([0]), np.array([0]), np.array([-1]))
    with pytest.raises(ConfigError, match="needs a data set with a support set"):
        EpisodeRetriever(EpisodeOptions()).retrieve(whole, plain, 2, 0)
    assert EpisodeRetriever(EpisodeOptions()).retrieve(whole, queries(("a",), whole), 0, 0).shape == (1, 0)
    half = QuerySet(np.array([0]), np.array([0]), np.array([-1]), support=np.full((1, 3), NO_IMAGE))
    with pytest.raises(DataError, match="query 0: its support set does not hold 1 of each"):
        EpisodeRetriever(EpisodeOptions()).retrieve(whole, half, 2, 0)
    three = EpisodeRetriever(EpisodeOptions(ways=3))
    assert "33 % right" in three.remarks[0]
    assert three.remarks[1] == "episode: a shot is an example of each of 3 classes"
    assert three.shot_size == 3
