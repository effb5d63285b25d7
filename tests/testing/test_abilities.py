"""What the suites say of abilities that have another form than their contract gives."""

from __future__ import annotations

from typing import Any

import pytest

from icltool.testing.abilities import (
    expect_choosing_abilities,
    expect_judging_abilities,
    expect_learning_abilities,
    expect_reading_abilities,
)

RIGHT_JUDGE = {"tasks": ("vqa",), "least_references": 4, "reads": "raw_references", "instead": "vqa-accuracy-raw"}
RIGHT_METHOD = {
    **{"remarks": ["an upper bound"], "fingerprint": None, "query": "text", "sequences": "validation"},
    **{"lengths": (2, 4), "encoder": "vit-l-14", "shots": 3, "joint": False, "learner": "pointer"},
    **{"pool_size": lambda self, shots: shots + 1, "shot_size": 2},
}


def object_with(abilities: dict[str, Any]) -> object:
    return type("Made", (), abilities)()


def test_right_ones_and_none_pass() -> None:
    for abilities in ({}, RIGHT_JUDGE):
        expect_judging_abilities(object_with(abilities))
    for abilities in ({}, RIGHT_METHOD, {"identity": lambda self: {"k": 2}}):
        expect_choosing_abilities(object_with(abilities))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tasks", "vqa", "names of tasks"),
        ("tasks", ("vqaa",), "`tasks` names vqaa; the tasks are caption, "),
        ("least_references", 0, "a positive integer"),
        ("reads", "answers", "a field of Example"),
        ("instead", "", "the name of a metric"),
    ],
)
def test_wrong_ones_of_a_judge(name: str, value: object, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        expect_judging_abilities(object_with({**RIGHT_JUDGE, name: value}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("remarks", "one line", "lines of text"),
        ("fingerprint", 7, "a text or None"),
        ("query", "question", '"image" or "text"'),
        ("sequences", 1, "the name of a split"),
        ("lengths", (0, 2), "numbers of demonstrations"),
        ("encoder", "", "a name or None"),
        ("shots", -1, "a non-negative integer"),
        ("joint", "yes", "True or False"),
        ("shot_size", 0, "a positive integer"),
        ("learner", None, "the name of a learner"),
        ("pool_size", lambda self, shots: 2, r"`pool_size\(5\)` must be a number from 5 on, not 2"),
        ("identity", lambda self: 3, "a mapping"),
        ("identity", lambda self: {"at": object()}, "different answers"),
    ],
)
def test_wrong_ones_of_a_method(name: str, value: object, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        expect_choosing_abilities(object_with({**RIGHT_METHOD, name: value}))


def test_a_reader_names_one_metric_or_several() -> None:
    expect_reading_abilities(object_with({"metrics": {"vqa": "exact-match", "multiple-choice": ("accuracy", "top-5")}}))
    with pytest.raises(AssertionError, match="names of metrics"):
        expect_reading_abilities(object_with({"metrics": {"vqa": ("exact-match", 3)}}))


RIGHT_LEARNER = {"variant": "query_img-gpt2", "starts_from_trained": False, "identity": lambda self: {"lr": 1e-3}}


def test_right_learners_pass() -> None:
    for abilities in ({}, RIGHT_LEARNER):
        expect_learning_abilities(object_with(abilities), object_with(abilities))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("variant", "a/b", "part of a folder's name"),
        ("starts_from_trained", "true", "a truth value"),
        ("identity", lambda self: {"at": object()}, "JSON values"),
        ("identity", lambda self: {"at": id(self)}, "the same for the same options"),
    ],
)
def test_wrong_ones_of_a_learner(name: str, value: object, message: str) -> None:
    learners = [object_with({**RIGHT_LEARNER, name: value}) for _ in range(2)]
    with pytest.raises(AssertionError, match=message):
        expect_learning_abilities(*learners)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("fingerpint", "fingerprint"), ("remark", "remarks"), ("lenghts", "lengths"), ("learners", "learner")],
)
def test_a_misspelt_ability_of_a_method_is_told(name: str, meant: str) -> None:
    with pytest.raises(AssertionError, match=f"`{name}` is not part of any contract: did you mean `{meant}`"):
        expect_choosing_abilities(object_with({name: ("one",)}))
    right = {**RIGHT_METHOD, "identity": lambda self: {}}
    expect_choosing_abilities(object_with({**right, name: ("one",), f"_{name}": 3}))


def test_a_reader_that_names_metrics() -> None:
    for abilities in ({}, {"metrics": {"vqa": "okvqa-accuracy"}}):
        expect_reading_abilities(object_with(abilities))
    for metrics, message in (
        (["cider"], "must map"),
        ({"vqa": 3}, "must map"),
        ({"vqaa": "cider"}, "names the tasks vqaa"),
    ):
        with pytest.raises(AssertionError, match=message):
            expect_reading_abilities(object_with({"metrics": metrics}))
