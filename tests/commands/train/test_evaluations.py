"""Training on stored evaluations: what they are gathered into, and the way from answers to a subset of the index set."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.commands.evaluate import run as evaluate
from icltool.commands.train import run as train
from icltool.commands.train.evaluations import collected
from icltool.commands.train.options import TrainConfig
from icltool.contracts import EvaluationSet, Progress, StageReport, TrainingOutcome
from icltool.errors import ConfigError, IclError, StoreError
from icltool.store.evaluations import read_evaluation, read_predictions
from icltool.store.records import open_dataset
from icltool.store.subsets import read_subset
from tests.commands.evaluate.test_ranked import workspace as classification
from tests.commands.evaluate.test_run import QUIET, config
from tests.commands.train.mean_scores import MeanScores
from tests.components.models import tiny

CHOICES = {1: ("red", "green"), 2: ("yes", "no", "maybe"), 3: ("red", "green")}
NUMBERS = st.none() | st.floats(-9, 9)


@st.composite
def settings(draw: st.DrawFn, ranked: bool) -> list[list[dict[str, Any]]]:
    """Rows of several settings; a pair of list and query may come in more than one."""
    results = []
    for _ in range(draw(st.integers(0, 4))):
        rows = []
        for query in draw(st.lists(st.sampled_from([1, 2, 3]), unique=True)):
            icds = draw(st.lists(st.integers(10, 13), unique=True, min_size=1, max_size=3))
            scores = draw(st.dictionaries(st.sampled_from(["accuracy", "cider"]), NUMBERS))
            row = {"query_id": query, "icd_ids": icds, "scores": scores, "references": [CHOICES[query][0], "x"]}
            if ranked:
                row["log_probs"] = {choice: draw(NUMBERS) for choice in CHOICES[query]}
            rows.append(row)
        results.append(rows)
    return results


def _number(value: float | None) -> float:
    return math.nan if value is None else value


@pytest.mark.parametrize("ranked", [False, True])
@given(data=st.data())
def test_answers_are_gathered_as_loops_gather_them(ranked: bool, data: st.DataObject) -> None:
    results = data.draw(settings(ranked))
    expected = collected(results, "accuracy")
    rows = [row for setting in results for row in setting]
    assert expected.query_ids.tolist() == sorted({row["query_id"] for row in rows})
    lists = [
        [one for one, lacking in zip(icds, padding, strict=True) if not lacking]
        for icds, padding in zip(expected.lists.tolist(), expected.padding.tolist(), strict=True)
    ]
    assert lists == [list(icds) for icds in sorted({tuple(row["icd_ids"]) for row in rows})]
    assert expected.references == tuple((CHOICES[query][0], "x") for query in expected.query_ids.tolist())
    assert expected.scores.shape == (len(lists), len(expected.query_ids))
    for s, icds in enumerate(lists):
        for d, query in enumerate(expected.query_ids.tolist()):
            first = next((row for row in rows if row["icd_ids"] == icds and row["query_id"] == query), None)
            score = math.nan if first is None else _number(first["scores"].get("accuracy"))
            assert np.array_equal(expected.scores[s, d], score, equal_nan=True)
            if not (ranked and rows):
                assert expected.log_probs is None
                continue
            assert expected.log_probs is not None
            assert expected.choices[d] == CHOICES[query]
            own = [math.nan if first is None else _number(first["log_probs"][choice]) for choice in CHOICES[query]]
            width = expected.log_probs.shape[2]
            assert np.array_equal(expected.log_probs[s, d], [*own, *[math.nan] * (width - len(own))], equal_nan=True)


@given(data=st.data())
def test_the_order_of_settings_changes_nothing_where_answers_agree(data: st.DataObject) -> None:
    results = data.draw(settings(True))
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    same = [[known.setdefault((row["query_id"], *row["icd_ids"]), row) for row in rows] for rows in results]
    shuffled = data.draw(st.permutations(same))
    assert collected(shuffled, "accuracy").content_hash() == collected(same, "accuracy").content_hash()


class Recording(MeanScores):
    """Keeps what it was given."""

    data: EvaluationSet

    def train(self, data: EvaluationSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        Recording.data = data
        return super().train(data, folder, seed, progress)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner under test, in place of the one that is named."""
    monkeypatch.setattr(train, "component", lambda kind, name, **options: Recording(**options))


def _answered(workspace: Path, **options: Any) -> Path:
    values = {"task": "vqa", "queries": "train", "query_size": 6, "methods": ("zero-shot", "A=random:fixed=true")}
    report = evaluate.run(config(workspace, **{**values, **options}), QUIET)
    assert report.path is not None
    return report.path


def _trained(workspace: Path, *folders: Path, **options: Any) -> StageReport:
    values = {"task": "vqa", "learner": "lever-lm", "model": "tiny-idefics"}
    return train.run(TrainConfig(workspace=workspace, evaluations=folders, **{**values, **options}), QUIET)


def test_answers_to_train_queries_give_a_subset_that_methods_choose_among(workspace: Path) -> None:
    one = _answered(workspace, seeds=(0, 1, 2, 3, 4))
    other = _answered(workspace, seeds=(5, 6), query_size=8, shots=(3,))
    report = _trained(workspace, one, other, options={"size": 7})
    data = Recording.data
    assert data.lists.shape == (7, 3)
    assert sorted((data.lists >= 0).sum(axis=1).tolist()) == [2] * 5 + [3] * 2
    assert data.scores.shape == (7, 8)
    assert data.answered.sum() == 5 * 6 + 2 * 8
    assert data.metric == next(iter(read_evaluation(one).results[0].metrics))
    assert data.log_probs is None
    assert set(data.index.labels) == {e.label for e in open_dataset(workspace / "datasets/shapes/vqa").split("train")}
    for row in read_predictions(other / "predictions" / "A-3-shot-seed6.jsonl"):
        demonstrations = [data.index.ids[icds[icds >= 0]].tolist() for icds in data.lists]
        at = demonstrations.index(row["icd_ids"]), data.query_ids.tolist().index(row["query_id"])
        assert data.scores[at] == row["scores"][data.metric]
        assert data.references[at[1]] == tuple(row["references"])
    assert report.path is not None
    subset = report.path / "last.json"
    assert len(read_subset(subset).ids) == 7
    record = json.loads((report.path / "training.json").read_text())
    assert record["provenance"]["queries"] == "train"
    assert record["provenance"]["evaluations"] == [one.name, other.name]
    restricted = evaluate.run(config(workspace, task="vqa", methods=("i2i",), test_size=4, index_subset=subset), QUIET)
    assert any(
        "restricted to 7 of" in line and "by mean-scores from train queries" in line for line in restricted.lines()
    )


def test_choices_that_were_ranked_come_with_their_log_probabilities(tmp_path: Path) -> None:
    choices = ("bad", "so so", "good")
    home, weights = classification(tmp_path / "ws", choices), tiny.gpt2(tmp_path / "gpt2")
    options = {"task": None, "model": "text-llm", "model_path": weights, "query_size": 4, "seeds": (0, 1, 2)}
    folder = _answered(home, **options)
    _trained(home, folder, task=None, model="text-llm")
    data = Recording.data
    assert data.metric == "accuracy"
    assert data.choices == (choices,) * 4
    assert data.log_probs is not None
    assert data.log_probs.shape == (*data.scores.shape, 3)
    assert not np.isnan(data.log_probs).any()
    right = [[choices[place] in data.references[d] for d, place in enumerate(row)] for row in data.log_probs.argmax(2)]
    assert np.array_equal(data.scores, 100 * np.array(right, dtype=np.float64))


def test_answers_by_other_weights_are_not_learned_from_together(workspace: Path) -> None:
    folders = [_answered(workspace), _answered(workspace, query_size=7)]
    content = json.loads((folders[1] / "results.json").read_text())
    content["provenance"]["weights"] = {"models/tiny-idefics": "0123456789ab"}
    (folders[1] / "results.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="other weights of"):
        _trained(workspace, *folders)


def test_the_same_answers_are_learned_from_once_and_others_anew(workspace: Path) -> None:
    folder = _answered(workspace, seeds=(0, 1))
    first = _trained(workspace, folder)
    again = _trained(workspace, folder)
    assert again.path == first.path
    assert any("up to date" in line for line in again.lines())
    _answered(workspace, seeds=(0, 1, 2))
    assert _trained(workspace, folder).path != first.path


def test_a_chosen_list_for_each_query_leaves_most_pairs_unasked(workspace: Path) -> None:
    _trained(workspace, _answered(workspace, methods=("i2i",)))
    data = Recording.data
    assert data.answered.sum() == 6
    assert (data.answered.sum(axis=0) == 1).all()


@pytest.mark.parametrize(
    ("evaluated", "trained", "error", "message"),
    [
        ({"queries": "validation", "query_size": None, "test_size": 4}, {}, StoreError, "of the validation split"),
        ({"methods": ("zero-shot",)}, {}, ConfigError, "no setting has demonstrations"),
        ({}, {"task": "caption"}, StoreError, "evaluates another data set"),
        ({}, {"sequences": Path("one.h5")}, ConfigError, "--sequences: .* learns from evaluations"),
        (None, {}, ConfigError, "learns from evaluations"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(
    evaluated: dict[str, Any] | None, trained: dict[str, Any], error: type[IclError], message: str, workspace: Path
) -> None:
    folders = [] if evaluated is None else [_answered(workspace, **evaluated)]
    with pytest.raises(error, match=message) as caught:
        _trained(workspace, *folders, **trained)
    assert "\n" not in caught.value.message
    assert not (workspace / "checkpoints").exists()


def test_answers_under_other_options_are_not_learned_from_together(workspace: Path) -> None:
    folders = [_answered(workspace), _answered(workspace, num_beams=1)]
    with pytest.raises(ConfigError, match=r"differ in num beams \(None, 1\)"):
        _trained(workspace, *folders)


def test_other_learners_take_no_evaluations(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="lever-lm does not learn from evaluations"):
        _trained(workspace, workspace / "evaluations")
