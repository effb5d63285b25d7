"""Questions with choices of their own: ranked by text, ranked by letter, or answered with a letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.report import EvaluationReport
from icltool.contracts import Example, PreparedSplit
from icltool.errors import ConfigError, DataError
from icltool.execution.progress import for_terminal
from icltool.plugin.manager import component
from icltool.store.evaluations import read_evaluation, read_predictions
from icltool.store.records import write_dataset
from icltool.testing import QuietProgress
from tests.components.models import tiny

WORDS = ("fine", "dull", "warm", "cold", "long", "neat")


def questions(count: int, seed: int, size: int = 3) -> list[Example]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        choices = tuple(str(word) for word in rng.permutation(WORDS)[: size + number % 2])
        label = choices[int(rng.integers(len(choices)))]
        identifier, question = 1000 * seed + number, f"which word, {number}?"
        rows.append(Example(identifier, "", identifier, question, label, (label,), question=question, choices=choices))
    return rows


def prepared(folder: Path, queries: list[Example] | None = None) -> Path:
    parts = {"train": questions(12, 1), "validation": queries or questions(10, 2)}
    splits = [PreparedSplit(name, len(rows), iter(rows)) for name, rows in parts.items()]
    where = folder / "datasets" / "words" / "multiple-choice"
    write_dataset(where, "words", "multiple-choice", "multiple-choice", splits, {}, QuietProgress())
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.gpt2(tmp_path_factory.mktemp("gpt2") / "gpt2"))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return prepared(tmp_path / "ws")


def evaluated(workspace: Path, weights: str, **options: Any) -> EvaluationReport:
    usual: dict[str, Any] = {"methods": ("random",), "shots": (2,), "model": "text-llm", "model_path": weights}
    config = EvaluateConfig(workspace=workspace, device="cpu", **{**usual, **options})
    return evaluate.run(config, for_terminal(quiet=True))


def predictions(report: EvaluationReport) -> list[Any]:
    assert report.path is not None
    return read_predictions(report.path / "predictions" / "random-2-shot-seed0.jsonl")


@pytest.mark.parametrize("norm", ["mean", "sum"])
def test_letters_are_ranked_where_the_prompt_lists_the_choices(workspace: Path, weights: str, norm: str) -> None:
    report = evaluated(workspace, weights, rank_by="letter", rank_norm=norm)
    model = component("models", "text-llm", path=weights, device="cpu")
    inputs = Inputs(EvaluateConfig(workspace=workspace, rank_by="letter", methods=("random",)))
    for row in predictions(report):
        query = inputs.queries[inputs.queries.row_of(row["query_id"])]
        shown = [inputs.index[inputs.index.row_of(i)] for i in row["icd_ids"]]
        expected = ""
        for example in [*shown, query]:
            expected += f"Question:{example.question}\n"
            expected += "".join(f"{'ABCD'[n]}. {choice}\n" for n, choice in enumerate(example.choices))
            expected += "Answer:" if example is query else f"Answer:{'ABCD'[example.choices.index(example.label)]}\n"
        assert row["prompt"].endswith(expected)
        assert list(row["log_probs"]) == list(query.choices)
        for choice, value in row["log_probs"].items():
            letter = "ABCD"[query.choices.index(choice)]
            labelled = Example(query.id, "", 1, "", choice, (choice,), question=query.question, choices=query.choices)
            prompt = model.prompt(inputs.task, shown, labelled)
            assert prompt.target.startswith(letter)
            [score] = model.score([prompt], 1)
            assert value == pytest.approx(score.log_prob if norm == "sum" else score.mean, abs=1e-4)
        assert row["answer"] == max(row["log_probs"], key=row["log_probs"].get)
        assert row["references"] == [query.label]
    assert report.path is not None
    configuration = read_evaluation(report.path).provenance["configuration"]
    assert configuration["rank_by"] == "letter"
    assert configuration.get("rank_norm") == (norm if norm == "sum" else None)


def test_texts_are_ranked_by_default(workspace: Path, weights: str) -> None:
    """An evaluation of before there was a choice is that of the default."""
    report = evaluated(workspace, weights)
    assert all("A. " not in row["prompt"] for row in predictions(report))
    again = evaluated(workspace, weights, rank_by="text", rank_norm="mean", letter_rule="strict")
    assert again.path == report.path
    assert any("up to date" in line for line in again.lines())
    assert report.path is not None
    assert not {"rank_by", "rank_norm", "letter_rule"} & set(read_evaluation(report.path).provenance["configuration"])


def test_a_letter_that_cannot_be_read_is_wrong_and_counted(workspace: Path, weights: str) -> None:
    report = evaluated(workspace, weights, rank_by="generate")
    rows = predictions(report)
    unreadable = [row for row in rows if not row["answer"]]
    assert unreadable
    assert all(row["scores"]["accuracy"] == 0 for row in unreadable)
    assert all("log_probs" not in row for row in rows)
    [result] = report.results
    assert result.extra["unreadable"] == len(unreadable)
    line = f"answers that could not be read, which count as wrong: random, 2-shot {len(unreadable)} of 10"
    assert line in report.lines()


def test_the_chance_level_is_the_mean_of_one_over_the_choices(workspace: Path, weights: str) -> None:
    report = evaluated(workspace, weights, methods=("zero-shot",))
    assert f"chance level of accuracy: {100 * (1 / 3 + 1 / 4) / 2:.1f}" in report.lines()


def test_of_two_equal_choices_either_is_right(tmp_path: Path, weights: str) -> None:
    twice = [Example(1, "", 1, "?", "fine", ("fine",), question="?", choices=("dull", "fine", "fine"))]
    workspace = prepared(tmp_path / "ws", twice)
    for by in ("text", "letter"):
        report = evaluated(workspace, weights, rank_by=by)
        [row] = predictions(report)
        assert list(row["log_probs"]) == ["dull", "fine"]
        assert row["scores"]["accuracy"] == 100 * (row["answer"] == "fine")
        assert "chance level of accuracy: 50.0" in report.lines()


def test_choices_with_images_have_no_text_to_rank(tmp_path: Path) -> None:
    images = {"image": "/a.jpg", "more_images": ("/b.jpg",), "more_image_ids": (2,), "images_in_text": True}
    pictures = Example(
        id=1, image_id=1, text="?", label="B", references=("B",), question="?", choices=("<image>", "<image>"), **images
    )  # fmt: skip
    workspace = prepared(tmp_path / "ws", [pictures])
    config = EvaluateConfig(workspace=workspace, methods=("random",))
    with pytest.raises(ConfigError, match="query 1 has choices with images, which have no text to rank") as caught:
        assert Inputs(config).chance
    assert "--rank-by letter" in str(caught.value.hint)
    assert Inputs(config.model_copy(update={"rank_by": "letter"})).chance == 0.5


def test_a_query_without_choices(tmp_path: Path) -> None:
    workspace = prepared(tmp_path / "ws", [Example(1, "", 1, "?", "fine", ("fine",), question="?")])
    with pytest.raises(DataError, match="query 1 has no choices to rank"):
        assert Inputs(EvaluateConfig(workspace=workspace, methods=("random",))).chance
