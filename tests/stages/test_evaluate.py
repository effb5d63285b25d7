"""Evaluating retrieval methods on a small world, with the real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.config.evaluate import EvaluateConfig
from icltool.contracts import GenerationOptions, task_named
from icltool.errors import ConfigError, PluginError, StoreError
from icltool.execution.progress import for_terminal
from icltool.plugin.manager import component
from icltool.stages import evaluate
from icltool.store.evaluations import read_predictions, read_results
from icltool.store.records import open_dataset
from tests.stages.test_generate import InterruptedProgress

QUIET = for_terminal(quiet=True)


def config(workspace: Path, **options: Any) -> EvaluateConfig:
    return EvaluateConfig(workspace=workspace, **{"model": "tiny-idefics", "device": "cpu", "shots": (2,), **options})


def predictions(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(read_predictions(folder / "predictions" / f"{name}.jsonl"))


@pytest.mark.parametrize(("task", "method"), [("caption", "i2i"), ("vqa", "random"), ("vqa", "t2t")])
def test_predictions_are_those_of_the_saved_prompts(workspace: Path, tiny_model: Any, task: str, method: str) -> None:
    report = evaluate.run(config(workspace, task=task, methods=(method,)), QUIET)
    assert report.path is not None
    rows = predictions(report.path, f"{method}-2-shot-seed0")
    dataset = open_dataset(workspace / "datasets" / "shapes" / task)
    index, queries = dataset.split("train"), dataset.split("validation")
    assert [r["query_id"] for r in rows] == queries.ids.tolist()
    metric = component("metrics", task_named(task).metric)
    for row in rows[:3]:
        query = queries[queries.row_of(row["query_id"])]
        icds = [index[index.row_of(i)] for i in row["icd_ids"]]
        prompt = tiny_model.prompt(task, icds, query)
        assert row["prompt"] == prompt.text
        assert row["images"] == list(prompt.images)
        options = GenerationOptions(task_named(task).max_new_tokens)
        assert [row["raw"]] == tiny_model.generate([prompt], options, 1)
        assert row["answer"] == tiny_model.clean(task, row["raw"])
        assert row["references"] == list(query.references)
    scores = metric.score([r["answer"] for r in rows], [r["references"] for r in rows]) * metric.scale
    np.testing.assert_allclose([r["scores"][metric.name] for r in rows], scores)
    [result] = report.results
    assert result.metrics[metric.name].mean == pytest.approx(scores.mean())
    assert result.metrics[metric.name].low <= scores.mean() <= result.metrics[metric.name].high


def test_the_most_similar_demonstration_stands_last_unless_told_otherwise(workspace: Path) -> None:
    folders = [
        evaluate.run(config(workspace, methods=("i2i",), shots=(3,), reversed_order=r, overwrite=True), QUIET).path
        for r in (True, False)
    ]
    assert folders[0] == folders[1] is not None
    nearest_first = predictions(folders[1], "i2i-3-shot-seed0")
    evaluate.run(config(workspace, methods=("i2i",), shots=(3,)), QUIET)
    nearest_last = predictions(folders[0], "i2i-3-shot-seed0")
    assert [r["icd_ids"][::-1] for r in nearest_last] == [r["icd_ids"] for r in nearest_first]


def test_settings_accumulate_and_finished_ones_are_kept(workspace: Path) -> None:
    first = evaluate.run(config(workspace, methods=("zero-shot", "random"), shots=(1, 2), test_size=8), QUIET)
    assert [(r.method, r.shots) for r in first.results] == [("zero-shot", 0), ("random", 1), ("random", 2)]
    second = evaluate.run(config(workspace, methods=("random", "i2i"), shots=(2,), test_size=8), QUIET)
    assert second.path == first.path
    assert any("1 of 2 settings" in line for line in second.lines())
    assert first.path is not None
    kept, provenance = read_results(first.path)
    assert len(kept) == 4
    assert provenance["configuration"]["model"] == "tiny-idefics"


def test_an_interrupt_keeps_finished_settings(workspace: Path) -> None:
    options = {"methods": ("random",), "shots": (1, 2), "test_size": 8}
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(config(workspace, **options), InterruptedProgress(9))
    whole = evaluate.run(config(workspace, **options), QUIET)
    assert any("1 of 2 settings" in line for line in whole.lines())


def test_answers_do_not_depend_on_the_batch_size(workspace: Path) -> None:
    rows = []
    for batch_size, cache in ((64, 64), (5, 0)):
        report = evaluate.run(
            config(
                workspace, methods=("random",), shots=(4,), batch_size=batch_size, image_cache_mb=cache, overwrite=True
            ),
            QUIET,
        )
        assert report.path is not None
        rows.append(predictions(report.path, "random-4-shot-seed0"))
    assert rows[0] == rows[1]


def test_seeds_draw_other_demonstrations_and_subsets_are_nested(workspace: Path) -> None:
    report = evaluate.run(config(workspace, methods=("random",), seeds=(0, 1), test_size=10), QUIET)
    assert report.path is not None
    a, b = (predictions(report.path, f"random-2-shot-seed{s}") for s in (0, 1))
    assert [r["query_id"] for r in a] == [r["query_id"] for r in b]
    assert [r["icd_ids"] for r in a] != [r["icd_ids"] for r in b]
    few = evaluate.run(config(workspace, methods=("random",), index_size=5, test_size=4), QUIET)
    assert few.path is not None
    chosen = {i for r in predictions(few.path, "random-2-shot-seed0") for i in r["icd_ids"]}
    assert len(chosen) <= 5
    assert {r["query_id"] for r in predictions(few.path, "random-2-shot-seed0")} <= {r["query_id"] for r in a}


def test_captions_as_queries_are_called_an_upper_bound(workspace: Path) -> None:
    report = evaluate.run(config(workspace, methods=("t2i",), shots=(1,), test_size=4), QUIET)
    assert any("upper bound" in line for line in report.lines())


def test_results_file_is_plain_json(workspace: Path) -> None:
    report = evaluate.run(config(workspace, methods=("zero-shot",), test_size=4), QUIET)
    assert report.path is not None
    content = json.loads((report.path / "results.json").read_text())
    assert "zero-shot" in json.dumps(content)


class TestBadInput:
    def test_a_selector_that_was_never_trained(self, workspace: Path) -> None:
        with pytest.raises(StoreError, match="lever-lm") as caught:
            evaluate.run(config(workspace, methods=("lever-lm",)), QUIET)
        assert "icltool train lever-lm" in str(caught.value.hint)

    def test_wrong_values(self, workspace: Path) -> None:
        with pytest.raises(PluginError, match="did you mean 'random'"):
            evaluate.run(config(workspace, methods=("randon",)), QUIET)
        with pytest.raises(ConfigError, match="shots"):
            evaluate.run(config(workspace, shots=(-1,)), QUIET)
        with pytest.raises(ConfigError, match="shots from an index set"):
            evaluate.run(config(workspace, shots=(200,)), QUIET)
        with pytest.raises(PluginError, match="metric"):
            evaluate.run(config(workspace, metrics=("ciderr",)), QUIET)

    def test_embeddings_of_another_data_set(self, workspace: Path, tmp_path: Path) -> None:
        name = "shapes-caption-train-tiny-clip.h5"
        other = (workspace / "embeddings" / "shapes-vqa-train-tiny-clip.h5").read_bytes()
        (workspace / "embeddings" / name).write_bytes(other)
        with pytest.raises(StoreError, match="another version") as caught:
            evaluate.run(config(workspace, methods=("i2i",)), QUIET)
        assert "icltool embed" in str(caught.value.hint)

    def test_cut_embeddings(self, workspace: Path) -> None:
        path = workspace / "embeddings" / "shapes-caption-train-tiny-clip.h5"
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(StoreError, match=path.name):
            evaluate.run(config(workspace, methods=("i2i",)), QUIET)
