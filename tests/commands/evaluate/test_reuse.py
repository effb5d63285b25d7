"""Another metric is judged on the answers that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.execution.progress import for_terminal
from icltool.store.evaluations import predictions_file, read_predictions

QUIET = for_terminal(quiet=True)
TOLD = "answers of 2 settings are those of an earlier evaluation by other metrics"


def call(workspace: Path, metric: str, **changes: Any) -> evaluate.EvaluationReport:
    settings: dict[str, Any] = {
        **{"workspace": workspace, "task": "caption", "model": "tiny-idefics", "methods": ("zero-shot", "random")},
        **{"shots": (1,), "test_size": 4, "metrics": (metric,), **changes},
    }
    return evaluate.run(EvaluateConfig(**settings), QUIET)


def test_no_model_is_loaded_for_another_metric(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call(workspace, "bleu-1")

    def refused(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the answers are there")

    with monkeypatch.context() as patch:
        patch.setattr(EvaluateConfig, "open_model", refused)
        second = call(workspace, "word-accuracy")
    assert TOLD in second.lines()
    assert second.path != first.path
    anew = call(workspace, "word-accuracy", overwrite=True)
    assert TOLD not in anew.lines()
    pairs = zip(second.results, anew.results, strict=True)
    assert all(one.metrics == other.metrics for one, other in pairs)
    assert first.path is not None
    assert second.path is not None
    for result in second.results:
        key = (result.method, result.shots, result.seed)
        there, here = (read_predictions(predictions_file(path, *key)) for path in (first.path, second.path))
        assert [row["raw"] for row in there] == [row["raw"] for row in here]
        assert all(set(row["scores"]) == {"word-accuracy"} for row in here)
        assert result.extra["answers_from"] == first.path.name


def test_other_answers_are_not_taken(workspace: Path) -> None:
    call(workspace, "rouge-l", num_beams=1)
    other = call(workspace, "word-accuracy", num_beams=2)
    assert not any("earlier evaluation" in line for line in other.lines())


def test_damaged_predictions_are_answered_again(workspace: Path) -> None:
    first = call(workspace, "bleu-2", test_size=3)
    assert first.path is not None
    file = predictions_file(first.path, "zero-shot", 0, 0)
    file.write_bytes(file.read_bytes()[:-5])
    second = call(workspace, "bleu-3", test_size=3)
    assert "answers of 1 setting are those of an earlier evaluation by other metrics" in second.lines()
    results = [replace(result, seconds=0.0, extra={}) for result in second.results]
    again = call(workspace, "bleu-3", test_size=3, overwrite=True)
    assert results == [replace(result, seconds=0.0, extra={}) for result in again.results]
