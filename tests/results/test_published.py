"""Figures of others, for the right model and data set only."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import pytest

from icltool.plugin.manager import load_registry
from icltool.results.published import (
    PublishedFigure,
    all_figures,
    figure_text,
    published,
    published_for,
    published_lines,
)
from icltool.results.tables import published_sheet

#: Of data sets and models that icltool does not read.
OTHERS = {"textcaps", "imagenet-1k", "gpt-3", "human"}


def test_a_line_for_each_source_with_the_figure_of_each_number_of_shots() -> None:
    lines = published_lines(published("idefics-9b", "vqav2", ["vqa-accuracy"]))
    assert len(lines) == 3
    assert (
        "reported by MimIC, Hyper-ICL: vqa-accuracy, zero-shot 0-shot 29.25; vqa-accuracy, random 32-shot 56.18; vqa-accuracy, "
        "i2i 32-shot 58.07; vqa-accuracy, lora 0-shot 55.6; vqa-accuracy, live 0-shot 53.71 (protocol differs: re-runs by "
        "third parties; demonstrations drawn at random but for i2i (RICES))"
    ) in lines
    assert any(
        "later revision" in line and "4-shot 55.4, 8-shot 56.4, 16-shot 57.0, 32-shot 57.9" in line for line in lines
    )
    flamingo = published_lines(published("openflamingo-9b", "coco-karpathy"))
    assert any("0-shot 79.5 ±0.2, 4-shot 89.0 ±0.3" in line for line in flamingo)


def test_metrics_that_are_computed_come_first() -> None:
    figures = published("blip2-opt-2.7b", "coco-karpathy", ["cider"])
    assert [f.value for f in figures if f.metric == "cider"] == [143.9, 146.1]
    assert [f.metric == "cider" for f in figures] == [True, True, False, False, False]


def test_the_sheet_has_a_row_for_each_method_of_a_source() -> None:
    sheet = published_sheet(published("idefics-9b", "okvqa"), "okvqa-accuracy", 500)
    assert (sheet.heading, list(sheet.columns)) == ("okvqa-accuracy", ["0-shot", "32-shot"])
    assert [(row.name, [f.text for f in row.figures]) for row in sheet.rows][:2] == [
        ("zero-shot [1]", ["30.54", "–"]), ("random [1]", ["–", "48.48"]),
    ]  # fmt: skip
    assert sheet.caption.startswith("[1] MimIC, Hyper-ICL; protocol differs: re-runs")
    assert sheet.caption.endswith("of the whole split; the figures above are of 500 queries")


@pytest.mark.parametrize(
    "configuration",
    [
        {"model": "tiny-idefics", "dataset": "vqav2"},
        {"model": "idefics-9b", "dataset": "shapes"},
        {"model": "idefics-9b", "dataset": "vqav2", "queries": "train"},
        {"model": "idefics-9b", "dataset": "vqav2", "index_dataset": "okvqa"},
        {},
    ],
)
def test_of_others_nothing_is_said(configuration: dict[str, str]) -> None:
    assert published_for(configuration, ()) == []


def test_every_file_is_read_and_names_what_icltool_knows() -> None:
    shipped = [item.name for item in files("icltool.results.published").iterdir() if item.name.endswith(".toml")]
    figures = all_figures()
    assert len({figure.source for figure in figures}) == len(shipped) == 9
    registry = load_registry()
    models = {*registry.names("models"), "openflamingo-9b-llama"}
    unknown = {figure.model for figure in figures} - models - OTHERS
    assert all(name.startswith("openflamingo-") for name in unknown)  # of the plugin
    assert {figure.dataset for figure in figures} - {*registry.names("datasets")} <= OTHERS
    assert {figure.metric for figure in figures} - {*registry.names("metrics")} <= {"bleu-4"}
    assert all(isinstance(figure, PublishedFigure) and figure.value > 0 and figure.table for figure in figures)
    assert {figure.dataset for figure in figures if figure.model.startswith("openflamingo")}.isdisjoint({"vizwiz"})
    of_flamingo = {f.dataset: f.split for f in figures if f.model.startswith("openflamingo") and f.metric == "cider"}
    assert of_flamingo == {"coco-karpathy": "test", "flickr30k": "test"}


def test_values_have_one_digit_or_two() -> None:
    figure = published("idefics-9b", "vqav2")[0]
    texts = {
        value: figure_text(replace(figure, value=value, sd=sd)) for value, sd in ((57, 0.25), (29.25, None), (9, 1))
    }
    assert texts == {57: "57.0 ±0.25", 29.25: "29.25", 9: "9.0 ±1.0"}
