"""The leak guard's texts: what counts as the same, how codes get into arrays, and that methods respect them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.commands.evaluate.predictions import copied_from, shared_with
from icltool.components.tasks import task_named
from icltool.contracts import Example, IndexSet, PreparedSplit, QuerySet, group_code
from icltool.contracts.arrays import plain_text, text_code
from icltool.engine.demonstrations import checked_rows
from icltool.errors import PluginError
from icltool.plugin.manager import component
from icltool.store.arrays import guard_kinds, index_set, query_set
from icltool.store.records import PreparedDataset, write_dataset
from icltool.testing import QuietProgress

BOTH = frozenset({"question", "text"})


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("A man, riding a wave.", "a man riding  a WAVE", True),
        ("What colour is it?", "what colour is it", True),
        ("t-shirt", "t shirt", True),
        ("C++", "C", False),
        ("strasse", "STRASSE", True),
        ("हाथी", "हथ", False),  # vowel signs are no punctuation
        ("two dogs", "two dog", False),
    ],
)
def test_texts_are_compared_but_for_case_blanks_and_punctuation(a: str, b: str, same: bool) -> None:
    assert (plain_text(a) == plain_text(b)) is same
    assert (text_code(a) == text_code(b)) is same


def test_codes() -> None:
    assert text_code("", " .!") == -1
    assert text_code("a", "b") >= 0
    assert text_code("a b", "c") != text_code("a", "b c")
    assert text_code("", "a") != text_code("a")
    assert text_code("Red!") == group_code("red")


def caption(number: int, label: str, *others: str, image: int = 0, group: str = "") -> Example:
    return Example(number, "", image or number, label, label, (label, *others), group=group)


def vqa(number: int, question: str, label: str, *others: str) -> Example:
    return Example(number, "", number, question, label, (label, *others), question)


def sentence(number: int, text: str, label: str) -> Example:
    return Example(number, "", number, text, label, (label,), choices=("negative", "positive"))


def dataset(folder: Path, task: str, train: list[Example], validation: list[Example]) -> PreparedDataset:
    splits = [PreparedSplit(n, len(e), iter(e)) for n, e in (("train", train), ("validation", validation))]
    return write_dataset(folder / "mine" / task, "mine", task, task, splits, {}, QuietProgress())


def leaking(prepared: PreparedDataset, guard: frozenset[str]) -> list[dict[str, list[int]]]:
    """By query: ids of the leaking examples, by kind."""
    index = index_set(prepared.split("train"), (), None, guard=guard)
    queries = query_set(prepared.split("validation"), (), None, guard=guard)
    return [
        {kind: sorted(index.ids[rows].tolist()) for kind, rows in index.leaks_by_kind(queries, q).items() if len(rows)}
        for q in range(len(queries))
    ]


def test_captions_leak_by_any_reference_of_the_query_and_their_own_label_alone(tmp_path: Path) -> None:
    train = [caption(1, "A dog.", "a cat"), caption(2, "a cat", "a dog"), caption(3, "a cow", "a dog"), caption(4, "?")]
    prepared = dataset(tmp_path, "caption", train, [caption(9, "a horse", "A  dog"), caption(8, "!")])
    assert leaking(prepared, BOTH) == [{"text": [1]}, {}]
    assert leaking(prepared, frozenset()) == [{}, {}]


def test_questions_and_answers(tmp_path: Path) -> None:
    train = [vqa(1, "What is it?", "dog"), vqa(2, "what is it", "cat"), vqa(3, "Is it red?", "dog")]
    prepared = dataset(tmp_path, "vqa", train, [vqa(9, "What is it", "cow", "Dog"), vqa(8, "Why?", "dog")])
    assert leaking(prepared, BOTH) == [{"question": [1, 2], "text": [1]}, {}]
    assert leaking(prepared, frozenset({"text"})) == [{"text": [1]}, {}]


def test_a_classification_asks_its_text(tmp_path: Path) -> None:
    train = [sentence(1, "so good .", "positive"), sentence(2, "So good!", "negative"), sentence(3, "bad", "negative")]
    prepared = dataset(tmp_path, "classification", train, [sentence(9, "so good", "positive")])
    assert leaking(prepared, BOTH) == [{"question": [1, 2], "text": [1]}]


def test_inferences_leak_by_clue_and_inference_together(tmp_path: Path) -> None:
    train = [
        replace(caption(n, label), question=clue) for n, (clue, label) in enumerate((("Snow", "cold"), ("ice", "cold")))
    ]
    prepared = dataset(tmp_path, "inference", train, [replace(caption(9, "Cold", "winter"), question="snow")])
    assert leaking(prepared, guard_kinds(None, task_named("inference"))) == [{"text": [0]}]


def test_rows_of_a_subset_and_what_is_usual_by_task(tmp_path: Path) -> None:
    train = [caption(1, "a"), caption(2, "b"), caption(3, "a")]
    prepared = dataset(tmp_path, "caption", train, [caption(9, "a")])
    some = index_set(prepared.split("train"), (), None, np.array([2, 1]), guard=BOTH)
    assert some.contents is not None
    assert some.contents.tolist() == [text_code("", "a"), text_code("", "b")]
    assert guard_kinds(None, task_named("caption")) == {"image", "text"}
    assert guard_kinds(None, task_named("style")) == guard_kinds(None, task_named("inference")) == {"image", "text"}
    for task in ("vqa", "classification", "inference-choice"):
        assert guard_kinds(None, task_named(task)) == {"image"}
    assert guard_kinds(("question",), task_named("vqa")) == {"image", "question"}


CODES = st.integers(-1, 3)


@given(
    st.lists(st.tuples(CODES, CODES, CODES, CODES), min_size=1, max_size=30),
    st.lists(st.tuples(CODES, CODES, CODES, st.lists(CODES, min_size=2, max_size=2)), min_size=1, max_size=4),
    st.booleans(),
)
def test_rows_found_by_search_are_those_of_a_plain_loop(
    rows: list[Any], questions: list[Any], same_split: bool
) -> None:
    image, group, question, content = (np.array(c, dtype=np.int64) for c in zip(*rows, strict=True))
    index = IndexSet(np.arange(len(rows)), image, group, questions=question, contents=content)
    q_image, q_group, q_question = (np.array([q[i] for q in questions], dtype=np.int64) for i in range(3))
    contents = np.array([q[3] for q in questions], dtype=np.int64)
    queries = QuerySet(
        np.arange(len(questions)), q_image, q_group, same_split=same_split, questions=q_question, contents=contents
    )
    for q, (i, g, a, texts) in enumerate(questions):
        expected = [
            r
            for r, (i2, g2, a2, text) in enumerate(rows)
            if i == i2 or (g == g2 >= 0) or (a == a2 >= 0) or (text >= 0 and text in texts) or (same_split and r == q)
        ]
        leaking = index.leaking_rows(queries, q)
        assert leaking.dtype == np.int64
        assert leaking.tolist() == expected


def test_methods_and_the_check_respect_the_codes() -> None:
    codes = np.array([5, 6, 5, 7, 5, 8])
    index = IndexSet(np.arange(6), np.arange(6), np.full(6, -1), contents=codes)
    queries = QuerySet(np.array([100]), np.array([50]), np.array([-1]), contents=np.array([[5, -1]]))
    rows = component("retrievers", "random").retrieve(index, queries, 3, 0)
    assert sorted(rows[0].tolist()) == [1, 3, 5]
    with pytest.raises(PluginError, match="example 2 for query 100, which has the text of the query"):
        checked_rows("mine", np.array([[1, 2]]), index, queries, 2)


def test_what_is_counted_whatever_is_guarded() -> None:
    query = Example(9, "", 1, "What?", "dog", ("dog", "puppy"), "What?", "g")
    examples = [
        Example(1, "", 1, "Why?", "dog", ("dog",), "Why?"),
        Example(2, "", 2, "what", "Puppy!", ("Puppy",), "what"),
        Example(3, "", 3, "what", "cat", ("cat",), "what", "g"),
    ]
    assert shared_with(query, examples) == {"image": 1, "group": 1, "question": 2, "text": 1}
    assert shared_with(query, []) == {}
    assert copied_from("puppy.", examples) == [2]
    assert copied_from("", [caption(4, ".")]) == []
