"""vote-k against the paper's loops; the subset is one for all queries and is chosen once."""

from __future__ import annotations

import numpy as np
import pytest

from icltool.components.retrievers import votek
from icltool.components.retrievers.votek import VoteKOptions, VoteKRetriever, vote_k
from icltool.contracts import Float64Array, IndexSet, IntArray
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_retriever, make_anchors, make_index, make_queries


def test_conforms() -> None:
    check_retriever(lambda: load_registry().create("retrievers", "votek"))
    check_retriever(
        lambda: VoteKRetriever(VoteKOptions(budget=60, neighbours=10, sample=150, query="text", demonstration="text"))
    )


def by_the_paper(unit: Float64Array, budget: int, neighbours: int, discount: float) -> list[int]:
    count = len(unit)
    points_at = []
    for row in range(count):
        others = sorted((other for other in range(count) if other != row), key=lambda o: (-(unit[row] @ unit[o]), o))
        points_at.append(set(others[:neighbours]))
    selected: list[int] = []
    for _ in range(budget):
        scores = {
            u: sum(
                discount ** -len(points_at[v] & set(selected))
                for v in range(count)
                if v not in selected and u in points_at[v]
            )
            for u in range(count)
            if u not in selected
        }
        selected.append(max(scores, key=lambda u: (round(scores[u], 9), -u)))
    return selected


@pytest.mark.parametrize("seed", range(3))
def test_selection_is_the_papers(seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((70, 6)).astype(np.float32)
    wide = vectors.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    assert vote_k(vectors, 12, 8, 10.0).tolist() == by_the_paper(unit, 12, 8, 10.0)


def test_selected_rows_stand_for_all_clusters() -> None:
    rng = np.random.default_rng(4)
    vectors = np.repeat(np.eye(8), 12, axis=0) + 0.05 * rng.standard_normal((96, 8))
    owner = np.repeat(np.arange(8), 12)
    assert set(owner[vote_k(vectors.astype(np.float32), 8, 11, 10.0)].tolist()) == set(range(8))


def test_all_queries_are_served_from_one_subset_that_is_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = votek.vote_k

    def counted(*arguments: object) -> IntArray:
        calls.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(votek, "vote_k", counted)
    index = make_index(240)
    retriever = VoteKRetriever(VoteKOptions(budget=40, neighbours=20))
    assert index.image is not None
    rows = retriever.retrieve(index, make_queries(index, range(0, 240, 7)), 3, 0)
    subset = retriever.subset(index.image.copy(), 0)
    assert len(subset) == 40
    assert np.isin(rows, subset).all()
    assert len(calls) == 1, "the same values are not selected from again"
    index.image.flags.writeable = True
    index.image[0] += 1
    retriever.retrieve(index, make_queries(index, [5]), 3, 0)
    assert len(calls) == 2, "other values in the same array are"


def test_a_large_index_set_is_sampled_by_seed() -> None:
    vectors = np.random.default_rng(5).standard_normal((300, 6)).astype(np.float32)
    first, again, other = (
        VoteKRetriever(VoteKOptions(budget=20, sample=100)).subset(vectors, seed) for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()
    whole = [VoteKRetriever(VoteKOptions(budget=20, sample=300)).subset(vectors, seed) for seed in (0, 1)]
    assert (whole[0] == whole[1]).all()


def test_too_small_a_subset_names_the_budget() -> None:
    index = make_index(240)
    with pytest.raises(DataError, match=r"only \d of the 6 selected") as caught:
        VoteKRetriever(VoteKOptions(budget=6)).retrieve(index, make_anchors(index, range(240)), 6, 0)
    assert "votek.budget=24" in str(caught.value.hint)
    tiny = IndexSet(np.arange(3), np.arange(3), np.full(3, -1), np.eye(3, dtype=np.float32))
    assert VoteKRetriever(VoteKOptions()).retrieve(tiny, make_anchors(tiny, [1]), 2, 0).tolist() == [[0, 2]]


@pytest.mark.parametrize("option", [{"budget": 0}, {"neighbours": "x"}, {"discount": 0.5}, {"sample": 1}])
def test_wrong_options_are_named(option: dict[str, object]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"'votek': {name} must be "):
        component("retrievers", "votek", **option)
