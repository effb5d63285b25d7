"""Interventions pass the suites of its kind, made and read through the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icltool.plugin.manager import component
from icltool.testing import check_intervention, check_intervention_learner, make_intervention_set
from tests.conftest import Scenery

_GRADIENTS = {"shots": 2, "max_train_size": 16, "epochs": 2, "batch_size": 4, "accumulate": 1, "lr": 5e-2}
OPTIONS: dict[str, dict[str, Any]] = {
    "live": {**_GRADIENTS, "alpha_lr": 0.3},
    "mimic": _GRADIENTS,
    "lora": _GRADIENTS,
    "icv-pca": {"shots": 2, "examples": 6, "dev_size": 4},
    "task-vector": {"shots": 2, "examples": 6, "dev_size": 4},
    "function-vector": {"shots": 2, "examples": 6, "dev_size": 4, "effect_size": 3},
}


@pytest.mark.parametrize(
    ("method", "task"), [*((method, "caption") for method in OPTIONS), ("live", "vqa"), ("task-vector", "vqa")]
)
def test_it_conforms(method: str, task: str, small_idefics: Any, scenery: Scenery, tmp_path: Path) -> None:
    """Questions with one method of each way of being applied."""
    question = "what colour?" if task == "vqa" else ""
    examples = scenery.mixed(24, seed=8, question=question)
    data = make_intervention_set(small_idefics, examples, task=task)
    result = check_intervention_learner(
        lambda: component("learners", method, **OPTIONS[method]),
        lambda file: component("interventions", method, file=file),
        data,
        tmp_path,
    )
    check_intervention(result, small_idefics, examples, task=task)
