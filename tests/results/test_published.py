"""Figures of others, for the right model and data set only."""

from __future__ import annotations

import pytest

from icltool.plugin.manager import load_registry
from icltool.results import published as module
from icltool.results.published import published, published_remark


def test_the_remark_lists_all_figures_of_model_and_data_set() -> None:
    assert published_remark("idefics-9b", "vqav2", "vqa") == (
        "reported in the literature (MimIC, Hyper-ICL; re-runs by third parties): zero-shot 29.25, random 32-shot 56.18, "
        "i2i 32-shot 58.07, lora 55.60, live 53.71"
    )
    assert published_remark("idefics2-8b-base", "coco2017", "caption").endswith(
        "zero-shot 40.00, random 8-shot 122.51, live 126.04"
    )
    assert published("idefics2-8b-base", "okvqa", "vqa")["live", 0] == 54.86


@pytest.mark.parametrize(
    ("model", "dataset", "task"),
    [("tiny-idefics", "vqav2", "vqa"), ("idefics-9b", "shapes", "vqa"), ("idefics-9b", "vqav2", "caption")],
)
def test_of_others_nothing_is_said(model: str, dataset: str, task: str) -> None:
    assert published_remark(model, dataset, task) == ""


def test_models_and_data_sets_exist_by_these_names() -> None:
    registry = load_registry()
    assert set(module._FIGURES) <= set(registry.names("models"))
    assert set(module._COLUMNS) <= set(registry.names("datasets"))
