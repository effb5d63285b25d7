"""Examples with several images, with fields of their own, and with one label for each rule."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from icltool.contracts import NO_IMAGE, Example, IndexSet, QuerySet, ScoringRequest, as_query, blanked, shown, shown_to
from icltool.errors import DataError


def example(number: int, **changes: object) -> Example:
    fields: dict[str, object] = {
        "id": number,
        "image": f"/data/{number}.jpg",
        "image_id": number,
        "text": f"text {number}",
        "label": f"label {number}",
        "references": (f"label {number}",),
    }
    return Example(**{**fields, **changes})  # type: ignore[arg-type]


def test_images_are_the_first_and_the_further_ones() -> None:
    pair = example(1, more_images=("/data/2.jpg",), more_image_ids=(2,))
    assert pair.images == ("/data/1.jpg", "/data/2.jpg")
    assert pair.image_ids == (1, 2)
    assert example(3, image="").images == ()
    assert pair.shares_image(example(2))
    assert not pair.shares_image(example(3))
    assert pair.without_images() == example(1, image="")
    assert pickle.loads(pickle.dumps(pair)) == pair


def test_a_demonstration_has_the_label_of_the_rule() -> None:
    digits = example(1, label="7", labels={"+": "7", "-": "1"}, text="7")
    query = example(2, rule="-", label="3")
    demonstration = shown_to(digits, query)
    assert (demonstration.label, demonstration.references, demonstration.text) == ("1", ("1",), "1")
    assert shown_to(digits, example(2)) is digits
    with pytest.raises(DataError, match="example 1 has no label for the rule 'x' of query 2") as caught:
        shown_to(digits, example(2, rule="x"))
    assert caught.value.hint == "it has labels for +, -"


def test_a_scoring_request_shows_the_label_of_the_rule() -> None:
    digits = example(1, labels={"+": "7", "-": "1"})
    request = ScoringRequest(example(2, rule="-"), (digits,))
    assert [d.label for d in request.demonstrations] == ["1"]
    assert ScoringRequest(request.query, request.demonstrations).demonstrations == request.demonstrations
    assert ScoringRequest(example(2), (digits,)).demonstrations == (digits,)


def test_a_blanked_query_tells_neither_rationale_nor_labels() -> None:
    query = blanked(example(1, rationale="because", labels={"+": "7"}, rule="+", choices=("a", "b")))
    assert (query.label, query.references, query.rationale, query.labels) == ("", (), "", {})
    assert (query.rule, query.choices) == ("+", ("a", "b"))


def test_any_shared_image_leaks() -> None:
    groups = np.full(4, -1)
    index = IndexSet(
        np.arange(4), np.array([10, 11, 12, 13]), groups, more_image_ids=np.array([[20], [NO_IMAGE], [10], [30]])
    )
    queries = QuerySet(
        np.arange(100, 103), np.array([50, 20, 40]), groups[:3], more_image_ids=np.array([[10], [13], [NO_IMAGE]])
    )
    assert [index.leaking_rows(queries, q).tolist() for q in range(3)] == [[0, 2], [0, 3], []]
    plain = IndexSet(index.ids, index.image_ids, groups)
    assert [plain.leaking_rows(queries, q).tolist() for q in range(3)] == [[0], [3], []]
    part, one = index.take(np.array([2, 3])), queries.take(np.array([0]))
    assert part.leaking_rows(one, 0).tolist() == [0]


def test_an_example_without_a_label_for_the_rule_is_no_demonstration() -> None:
    groups = np.full(3, -1)
    index = IndexSet(np.arange(3), np.arange(3), groups, rules=np.array([[5, 6], [6, -1], [-1, -1]]))
    queries = QuerySet(np.arange(10, 13), np.arange(10, 13), groups, rules=np.array([5, 6, -1]))
    assert [index.leaking_rows(queries, q).tolist() for q in range(3)] == [[1, 2], [2], []]


def test_an_index_example_is_asked_by_one_of_its_rules() -> None:
    digits = [example(n, label="7", text="7", labels={"+": "7", "-": "1", "x": "12"}) for n in range(60)]
    queries = [as_query(one) for one in digits]
    assert {query.rule for query in queries} == {"+", "-", "x"}
    for one, query in zip(digits, queries, strict=True):
        assert (query.label, query.references, query.text) == (one.labels[query.rule], (query.label,), query.label)
        assert as_query(one) == query, "drawn by the id"
        assert as_query(query) == query
    assert as_query(example(1)) == example(1)


def test_a_text_leaks_as_it_is_shown_by_the_rule() -> None:
    """Codes of texts: the label itself, then that of each rule."""
    groups = np.full(2, -1)
    index = IndexSet(
        np.arange(2),
        np.arange(2),
        groups,
        rules=np.array([[5, 6], [5, 6]]),
        contents=np.array([[70, 70, 71], [80, 70, 72]]),
    )
    queries = QuerySet(
        np.arange(10, 12), np.arange(10, 12), groups, rules=np.array([5, 6]), contents=np.array([[70], [72]])
    )
    assert [index.leaking_rows(queries, q).tolist() for q in range(2)] == [[0, 1], [1]]
    plain = QuerySet(queries.ids, queries.image_ids, groups, contents=np.array([[70], [72]]))
    assert [index.leaking_rows(plain, q).tolist() for q in range(2)] == [[0], []]


def test_a_support_set_keeps_all_others_away() -> None:
    ids = np.array([10, 11, 12, 13])
    index = IndexSet(ids, ids, np.full(4, -1))
    support = np.array([[11, 13, NO_IMAGE], [NO_IMAGE] * 3, [12, 99, 10]])
    queries = QuerySet(np.array([0, 1, 2]), np.array([13, 50, 60]), np.full(3, -1), support=support)
    assert [index.leaking_rows(queries, q).tolist() for q in range(3)] == [[0, 2, 3], [], [1, 3]]
    assert index.leaks_by_kind(queries, 0)["support"].tolist() == [0, 2]
    assert index.leaking_rows(queries.take(np.array([2])), 0).tolist() == [1, 3]


def test_examples_that_follow_another_stand_behind_it() -> None:
    last = example(1, image="/c.jpg", image_id=3, label="no")
    head = example(1, image="/a.jpg", image_id=1, more_images=("/b.jpg",), more_image_ids=(2,), followed_by=(last,))
    assert (head.images, head.image_ids) == (("/a.jpg", "/b.jpg", "/c.jpg"), (1, 2, 3))
    query = example(9, image="/q.jpg", image_id=3)
    assert head.shares_image(query)
    first, second = shown([head], query)
    assert (first.images, first.label, first.followed_by) == (("/a.jpg", "/b.jpg"), head.label, ())
    assert second == last
    request = ScoringRequest(head, (head, last))
    assert [one.images for one in request.demonstrations] == [("/a.jpg", "/b.jpg"), ("/c.jpg",), ("/c.jpg",)]
    assert request.query.images == ("/a.jpg", "/b.jpg")
    assert ScoringRequest(request.query, request.demonstrations) == request
    assert [one.images for one in shown([head.without_images()], query)] == [(), ()]
