"""Figures, bootstrap draws and breakdowns of a setting's answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.commands.evaluate.judging import Judge
from icltool.contracts import Example, Float64Array, Judgement
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from icltool.results.intervals import bootstrap_interval

FIXTURE = Path(__file__).parents[2] / "fixtures" / "vqa_accuracy.json"


def row(number: int, answer: str, *references: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"query_id": number, "group": group, "answer": answer, "references": list(references), "scores": {}, **more}


class Broken:
    """A metric that lacks its program."""

    name, scale = "broken", 1.0

    def fit(self, corpus: Iterable[Sequence[str]]) -> None: ...

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        raise DataError("no models", "get them")


class Median(Broken):
    """A corpus metric that is no mean: the weighted median length of an answer."""

    name, scale = "median", 10.0

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        return np.array([len(p) for p in predictions], dtype=np.float64)

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        lengths = np.array([len(j.answer) for j in judgements])
        return np.array([np.median(np.repeat(lengths, w.astype(int))) for w in weights], dtype=np.float64)


def test_the_official_breakdown_question_by_question() -> None:
    official = json.loads(FIXTURE.read_text(encoding="utf-8"))
    rows = [
        row(
            a["question_id"],
            official["predictions"][str(a["question_id"])],
            *a["answers"],
            question_type=a["question_type"],
            answer_type=a["answer_type"],
        )
        for a in official["annotations"]
    ]
    judge = Judge({"vqa-accuracy": component("metrics", "vqa-accuracy")})
    judged = judge.judge(rows)
    per_question = dict(zip((str(r["query_id"]) for r in rows), judged["vqa-accuracy"].scores.tolist(), strict=True))
    assert {q: round(s, 2) for q, s in per_question.items()} == official["expect"]["per_question"]
    assert round(judged["vqa-accuracy"].figure, 2) == official["expect"]["overall"]
    for column in ("answer_type", "question_type"):
        table = judge.breakdown(rows, column, judged)
        figures = {value: round(entry["vqa-accuracy"], 2) for value, entry in table.items()}
        assert figures == official["expect"][f"per_{column}"]
        assert sum(entry["queries"] for entry in table.values()) == len(rows)


def test_a_mean_has_the_interval_of_its_scores_and_a_corpus_figure_that_of_its_draws() -> None:
    rows = [row(i, "x" * (1 + i % 7), "xxx", group=f"g{i // 3}") for i in range(30)]
    judge = Judge({"accuracy": component("metrics", "accuracy"), "median": Median()})
    judged = judge.judge(rows)
    mean = judged["accuracy"].result
    expected = bootstrap_interval(judged["accuracy"].scores, [r["group"] for r in rows])
    assert (mean.mean, mean.low, mean.high) == pytest.approx(expected, abs=1e-12)
    lengths = np.array([len(r["answer"]) for r in rows])
    draws = np.random.default_rng(0).integers(0, 10, size=(2000, 10))  # ten groups of three
    medians = [10 * np.median(np.concatenate([lengths[3 * c : 3 * c + 3] for c in draw])) for draw in draws]
    assert judged["median"].figure == 10 * np.median(lengths)
    np.testing.assert_allclose(judged["median"].draws, medians)


def test_a_corpus_figure_is_broken_down_over_the_queries_of_each_type() -> None:
    rows = [row(i, "x" * i, answer_type="even" if i % 2 == 0 else "odd") for i in range(1, 8)]
    judge = Judge({"median": Median()})
    table = judge.breakdown(rows, "answer_type", judge.judge(rows))
    assert table == {"even": {"queries": 3.0, "median": 40.0}, "odd": {"queries": 4.0, "median": 40.0}}
    assert judge.breakdown(rows, "question_type", {}) == {}


def test_figures_by_an_aspect_are_over_the_queries_that_have_it() -> None:
    rows = [
        row(1, "a"),
        row(2, "bb", aspects={"subject": "art"}),
        row(3, "cccc", aspects={"subject": "art", "steps": "2"}),
    ]
    judge = Judge({"median": Median()})
    judged = judge.judge(rows)
    assert judge.breakdown(rows, "subject", judged) == {"art": {"queries": 2, "median": 30.0}}
    assert judge.breakdown(rows, "steps", judged) == {"2": {"queries": 1, "median": 40.0}}


def test_a_metric_that_cannot_run_is_left_out_from_then_on() -> None:
    rows = [row(1, "a", "a"), row(2, "b", "a")]
    judge = Judge({"broken": Broken(), "accuracy": component("metrics", "accuracy")})
    assert list(judge.judge(rows)) == ["accuracy"]
    assert str(judge.faults["broken"]) == "no models (get them)"
    assert list(judge.judge(rows, draws=False)) == ["accuracy"]
    assert Judge({"broken": Broken()}).judge(rows) == {}


class Absent(Broken):
    """A metric that knows before it is asked that it cannot run, and names another."""

    name, instead = "absent", "vqa-accuracy-raw"

    def check(self) -> None:
        raise ConfigError("no program", "install it")


def query(number: int, *raw: str) -> Example:
    return Example(number, "", number, "why?", "a", ("a",), "why?", raw_references=raw)


def test_a_default_that_cannot_run_gives_way_to_the_metric_that_it_names() -> None:
    judge = Judge({"absent": Absent(), "accuracy": component("metrics", "accuracy")}, default=True)
    judge.prepare(lambda: [query(1, *"AAAA"), query(2, *"BBBB")])
    assert (list(judge.metrics), judge.faults) == (["vqa-accuracy-raw", "accuracy"], {})
    [(name, (other, error))] = judge.replaced.items()
    assert (name, other, str(error)) == ("absent", "vqa-accuracy-raw", "no program (install it)")
    rows = [row(1, "A", "b", raw_references=["A"] * 10), row(2, "b", "b", raw_references=["A"] * 10)]
    judged = judge.judge(rows)
    assert {name: one.scores.tolist() for name, one in judged.items()} == {
        "vqa-accuracy-raw": [100.0, 0.0],
        "accuracy": [0.0, 100.0],
    }


def test_no_metric_that_was_asked_for_gives_way() -> None:
    judge = Judge({"absent": Absent(), "accuracy": component("metrics", "accuracy")})
    judge.prepare(lambda: [query(1, "A")])
    assert (list(judge.metrics), list(judge.faults), judge.replaced) == (["absent", "accuracy"], ["absent"], {})
    with pytest.raises(ConfigError, match="no program"):
        Judge({"absent": Absent()}).prepare(lambda: [query(1, "A")])


def test_nothing_gives_way_to_a_metric_that_cannot_run_either() -> None:
    with pytest.raises(ConfigError, match="no program"):
        Judge({"absent": Absent()}, default=True).prepare(lambda: [query(1, "A"), query(2)])


def test_queries_without_raw_references_are_named_before_anything_is_answered() -> None:
    metrics = {name: component("metrics", name) for name in ("vqa-accuracy-raw", "accuracy")}
    judge = Judge(metrics)
    judge.prepare(lambda: iter([query(1, "A"), query(2), query(3)]))
    assert str(judge.faults["vqa-accuracy-raw"]).startswith(
        "vqa-accuracy-raw reads raw references, which query 2 lacks"
    )
    rows = [row(1, "a", "a", raw_references=["a"]), row(2, "a", "a")]
    assert list(judge.judge(rows)) == ["accuracy"]
    late = Judge(metrics)
    assert list(late.judge(rows)) == ["accuracy"]
    assert "query 2 lacks" in str(late.faults["vqa-accuracy-raw"])


def test_queries_are_not_read_where_no_metric_needs_them() -> None:
    def unread() -> list[Example]:
        raise AssertionError

    judge = Judge({"accuracy": component("metrics", "accuracy")}, default=True)
    judge.prepare(unread)
    assert (list(judge.metrics), judge.faults) == (["accuracy"], {})


def test_a_corpus_metric_is_given_what_it_reads() -> None:
    class Longest(Median):
        name, reads = "longest", "raw_references"

        def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
            longest = max(len(text) for j in judgements for text in j.references)
            return np.full(len(weights), longest, dtype=np.float64)

    rows = [
        row(1, "a", "a", answer_type="x", raw_references=["four", "six"]),
        row(2, "b", "b", raw_references=["seven"]),
    ]
    judge = Judge({"longest": Longest()})
    judged = judge.judge(rows)
    assert judged["longest"].figure == 50
    assert judge.breakdown(rows, "answer_type", judged) == {"x": {"queries": 1, "longest": 50.0}}


def test_figures_from_stored_scores_are_those_of_the_judgement() -> None:
    rows = [row(i, "x" * (i % 4), "xx") for i in range(12)]
    judge = Judge({"accuracy": component("metrics", "accuracy"), "median": Median()})
    judged = judge.judge(rows)
    for one in judged:
        for number, entry in enumerate(rows):
            entry["scores"][one] = float(judged[one].scores[number])
    stored = judge.stored(json.loads(json.dumps(rows)))
    for name, one in judged.items():
        assert stored[name].figure == one.figure
        np.testing.assert_array_equal(stored[name].draws, one.draws)
    del rows[3]["scores"]["median"]
    assert list(judge.stored(rows)) == ["accuracy"]


def test_area_needs_the_log_probabilities_of_the_choices() -> None:
    rows = [
        row(i, "yes" if i % 3 else "no", "yes" if i % 2 else "no", log_probs={"no": -1.0, "yes": -1.0 + 0.1 * (i % 3)})
        for i in range(12)
    ]
    judge = Judge({"auc": component("metrics", "auc")})
    assert judge.judge(rows)["auc"].figure == pytest.approx(50.0)
    for entry in rows:
        del entry["log_probs"]
    assert judge.judge(rows) == {}
    assert "auc needs the log-probability" in str(judge.faults["auc"])
