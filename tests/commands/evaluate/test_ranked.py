"""Classification: the answer is the most probable choice, and metrics see the log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.contracts import Example, PreparedSplit, ScoringRequest
from icltool.engine.choices import best_choice
from icltool.execution.progress import for_terminal
from icltool.plugin.manager import component
from icltool.store.evaluations import read_predictions
from icltool.store.records import write_dataset
from icltool.testing import QuietProgress
from tests.components.models import tiny

WORDS = ("fine", "dull", "warm", "cold", "long", "neat")


def sentences(count: int, seed: int, choices: tuple[str, ...]) -> list[Example]:
    rng = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        text = " ".join(rng.choice(WORDS, 4))
        label = choices[int(rng.integers(len(choices)))]
        identifier = 1000 * seed + number
        texts.append(Example(identifier, "", identifier, text, label, (label,), choices=choices))
    return texts


def workspace(folder: Path, choices: tuple[str, ...]) -> Path:
    parts = {"train": sentences(12, 1, choices), "validation": sentences(10, 2, choices)}
    splits = [PreparedSplit(name, len(rows), iter(rows)) for name, rows in parts.items()]
    where = folder / "datasets" / "tone" / "classification"
    write_dataset(where, "tone", "classification", "classification", splits, {}, QuietProgress())
    return folder


@pytest.mark.parametrize("choices", [("negative", "positive"), ("bad", "so so", "good")])
def test_the_most_probable_choice_answers(tmp_path: Path, choices: tuple[str, ...]) -> None:
    weights = tiny.gpt2(tmp_path / "gpt2")
    options: dict[str, Any] = {"model": "text-llm", "model_path": weights, "device": "cpu", "methods": ("random",)}
    config = EvaluateConfig(workspace=workspace(tmp_path / "ws", choices), shots=(0, 2), **options)
    report = evaluate.run(config, for_terminal(quiet=True))
    assert report.path is not None
    expected = ["accuracy", "macro-f1", *(["auc"] if len(choices) == 2 else [])]
    assert [list(r.metrics) for r in report.results] == [expected] * 2
    rows = read_predictions(report.path / "predictions" / "random-2-shot-seed0.jsonl")
    model = component("models", "text-llm", path=weights, device="cpu")
    from icltool.store.records import open_dataset

    dataset = open_dataset(tmp_path / "ws" / "datasets" / "tone" / "classification")
    index, queries = dataset.split("train"), dataset.split("validation")
    for row in rows:
        query = queries[queries.row_of(row["query_id"])]
        request = ScoringRequest(query, tuple(index[index.row_of(i)] for i in row["icd_ids"]))
        for label, log_prob in row["log_probs"].items():
            labelled = Example(query.id, "", query.image_id, query.text, label, query.references, choices=choices)
            [score] = model.score([model.prompt("classification", request.demonstrations, labelled)], 1)
            assert log_prob == pytest.approx(score.mean, abs=1e-4)
        assert list(row["log_probs"]) == list(choices)
        assert row["answer"] == best_choice(row["log_probs"])
        assert row["prompt"] == model.prompt("classification", request.demonstrations, query).text
    right = [row["answer"] in row["references"] for row in rows]
    assert report.results[1].metrics["accuracy"].mean == pytest.approx(100 * np.mean(right))
