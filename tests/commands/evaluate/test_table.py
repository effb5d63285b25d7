"""`evaluate --csv`: a table that grows with every evaluation, each row with all that its figures depend on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.export import run as export
from icltool.commands.export.options import ExportConfig
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.results.appended_csv import KEY
from tests.commands.evaluate.test_fine_tuned import config
from tests.commands.evaluate.vectors import vectors
from tests.commands.train.fine_tuning import QUIET, SEARCH, SMALL


def table(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    with file.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        return list(reader.fieldnames or ()), list(reader)


def table_note(report: evaluate.EvaluationReport, file: Path) -> str:
    """What the evaluation says of the table."""
    (line,) = (line for line in report.lines() if line.startswith(f"{file}: "))
    return line.removeprefix(f"{file}: ")


def test_a_row_has_figures_and_all_that_they_depend_on(fine_tuned_world: Path, tmp_path: Path) -> None:
    file = tmp_path / "tables" / "results.csv"
    call = config(fine_tuned_world, methods=("zero-shot", "finetuned"), metrics=("bleu-1", "rouge-l"), csv=file)
    report = evaluate.run(call, QUIET)
    assert report.path is not None
    assert table_note(report, file) == "2 rows added"
    columns, (zero, trained) = table(file)
    assert tuple(columns[:1]) == KEY[:1]
    for row, result in ((zero, report.results[0]), (trained, report.results[1])):
        assert (row["evaluation"], row["method"], row["queries"]) == (report.path.name, result.method, "8")
        assert (row["dataset"], row["task"], row["model"], row["dtype"]) == ("shapes", "caption", "tiny-blip2", "auto")
        for name, figure in result.metrics.items():
            figures = [row[name], row[f"{name} low"], row[f"{name} high"]]
            assert [float(cell) for cell in figures] == [figure.mean, figure.low, figure.high]
        assert {name: row[f"generation.{name}"] for name in SEARCH} == {k: str(v) for k, v in SEARCH.items()}
    assert zero["training.lr"] == ""
    for name in ("epochs", "batch_size", "lr", "max_train_size", "schedule", "image_size", "select"):
        assert trained[f"training.{name}"] == str(SMALL[name])
    assert trained["setting"] != zero["setting"]


def test_it_grows_by_what_is_new(fine_tuned_world: Path, trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    small: dict[str, Any] = {"test_size": 4, "csv": file}
    first = evaluate.run(config(fine_tuned_world, methods=("zero-shot",), **small), QUIET)
    assert table_note(first, file) == "1 rows added"
    before = file.read_text(encoding="utf-8")

    again = evaluate.run(config(fine_tuned_world, methods=("zero-shot",), **small), QUIET)
    assert table_note(again, file) == "1 there already"
    assert file.read_text(encoding="utf-8") == before

    other = evaluate.run(config(fine_tuned_world, methods=("zero-shot", "finetuned"), **small), QUIET)
    assert table_note(other, file).startswith("1 rows added, 1 there already, new columns: training.")
    columns, rows = table(file)
    assert [row["method"] for row in rows] == ["zero-shot", "finetuned"]
    assert columns[: len(before.splitlines()[0].split(","))] == before.splitlines()[0].split(",")

    metric = evaluate.run(config(fine_tuned_world, methods=("zero-shot",), metrics=("rouge-l",), **small), QUIET)
    assert "new columns: rouge-l, rouge-l low, rouge-l high" in table_note(metric, file)
    _, rows = table(file)
    assert [(bool(row["bleu-1"]), bool(row["rouge-l"])) for row in rows] == [(True, False)] * 2 + [(False, True)]

    by_path = evaluate.run(config(fine_tuned_world, methods=("zero-shot",), model=str(trained), **small), QUIET)
    assert table_note(by_path, file) == "1 rows added"
    *_, last = table(file)[1]
    assert (last["model"], last["model_path"]) == ("tiny-blip2", str(trained))
    assert last["training.lr"] == str(SMALL["lr"]), "the weights are fine-tuned ones, whatever the method is called"


def test_demonstrations_and_the_model_s_own_options_make_rows_of_their_own(
    fine_tuned_world: Path, tmp_path: Path
) -> None:
    file = tmp_path / "results.csv"
    small: dict[str, Any] = {"methods": ("random",), "shots": (1, 2), "test_size": 4, "csv": file}
    evaluate.run(config(fine_tuned_world, seeds=(0, 1), **small), QUIET)
    evaluate.run(config(fine_tuned_world, adapter_options={"image_size": 40}, **{**small, "shots": (1,)}), QUIET)
    columns, rows = table(file)
    assert [(row["shots"], row["seed"]) for row in rows] == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1"), ("1", "0")]
    assert columns[-1] == "model.image_size"
    assert [row["model.image_size"] for row in rows] == [""] * 4 + ["40"]


def test_what_stands_in_for_demonstrations_tells_its_training(
    workspace: Path, tiny_model: IdeficsModel, tmp_path: Path
) -> None:
    file = tmp_path / "results.csv"
    about = {"dataset": "shapes", "task": "vqa", "shots": 8, "seed": 3, "options": {"alpha": 0.5}}
    live = vectors(tmp_path / "v.safetensors", tiny_model, 0.0, about=about)
    call = EvaluateConfig(
        workspace=workspace,
        model="tiny-idefics",
        device="cpu",
        task="vqa",
        test_size=2,
        vectors=(live,),
        cost=False,
        csv=file,
    )
    evaluate.run(call, QUIET)
    (row,) = table(file)[1]
    assert (row["method"], row["training.alpha"]) == ("live", "0.5")


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "one;two\n"])
def test_another_table_is_left_alone(fine_tuned_world: Path, tmp_path: Path, text: str) -> None:
    from icltool.errors import StoreError

    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(StoreError, match="is a different table"):
        evaluate.run(config(fine_tuned_world, methods=("zero-shot",), test_size=2, csv=file), QUIET)
    assert file.read_text() == text


def test_an_export_appends_the_same_rows(fine_tuned_world: Path, trained: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "results.csv", tmp_path / "other.csv"
    small: dict[str, Any] = {"test_size": 4, "csv": file, "adapter_options": {"image_size": 40}}
    first = evaluate.run(config(fine_tuned_world, methods=("zero-shot", "random"), **small), QUIET)
    second = evaluate.run(config(fine_tuned_world, methods=("zero-shot",), model=str(trained), **small), QUIET)
    assert first.path is not None
    assert second.path is not None
    call = ExportConfig(what="results", workspace=fine_tuned_world, input=(first.path, second.path), append=other)
    report = export.run(call, QUIET)
    assert report.path == other
    assert [line.removeprefix(f"{other}: ").partition(",")[0] for line in report.lines()] == [
        "2 rows added",
        "1 rows added",
    ]
    assert _undated(other) == _undated(file)
    assert [line.removeprefix(f"{other}: ") for line in export.run(call, QUIET).lines()] == [
        "2 there already",
        "1 there already",
    ]


def _undated(file: Path) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if name != "date"} for row in table(file)[1]]
