"""Suites of data sets: one table, resumable, with what is missing named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from icltool.cli.app import run
from icltool.commands.evaluate import run as module
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.suite import SuiteReport, read_suite, shipped_suites
from icltool.errors import ConfigError, StoreError
from icltool.plugin.manager import load_registry
from icltool.results.published import published
from icltool.testing import QuietProgress
from tests.commands.generate.test_run import InterruptedProgress

SUITE = """
summary = "two small worlds"
[evaluate]
methods = ["zero-shot", "random"]
shots = [1, 2]
test_size = 4
max_new_tokens = 2
[datasets.shapes]
task = "vqa"
[datasets.more]
shots = [2]
[datasets.vqav2]
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ws")
    sizes = ["--option", "index_images=30", "--option", "validation_images=6"]
    for name in ("shapes", "more"):
        assert run(["prepare", "shapes", "--name", name, "--task", "vqa", *sizes, "--workspace", str(folder)]) == 0
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


def evaluated(workspace: Path, suite: Path, **options: object) -> SuiteReport:
    config = EvaluateConfig(**{"workspace": workspace, "suite": str(suite), "model": "tiny-idefics", **options})  # type: ignore[arg-type]
    report = module.run(config, QuietProgress())
    assert isinstance(report, SuiteReport)
    return report


def test_one_table_of_all(workspace: Path, suite: Path) -> None:
    report = evaluated(workspace, suite)
    assert [(row["dataset"], row["method"], row["shots"]) for row in report.rows()] == [
        ("shapes", "zero-shot", 0), ("shapes", "random", 1), ("shapes", "random", 2), ("more", "zero-shot", 0),
        ("more", "random", 2),
    ]  # fmt: skip
    console = Console(width=80, record=True, file=None)
    with console.capture() as captured:
        console.print(report.table())
    lines = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert "Suite mine: two small worlds" in lines[0]
    assert lines.index("shapes, vqa-accuracy") < lines.index("more, vqa-accuracy")
    assert sum(line.startswith("random – ") for line in lines) == 2
    assert "vqav2 is not prepared: run `icltool prepare vqav2 --root DIR`" in report.remarks
    assert len(list((workspace / "evaluations").glob("*/results.json"))) == 2
    again = evaluated(workspace, suite)
    assert [note for note in again.remarks if "up to date: 3 of 3" in note or "up to date: 2 of 2" in note]
    assert [row["vqa-accuracy"] for row in again.rows()] == [row["vqa-accuracy"] for row in report.rows()]


def test_options_of_the_call_win(workspace: Path, suite: Path) -> None:
    rows = evaluated(workspace, suite, methods=("random",), test_size=2).rows()
    found = [(row["dataset"], row["shots"], row["queries"]) for row in rows]
    assert found == [("shapes", 1, 2), ("shapes", 2, 2), ("more", 2, 2)]


def test_an_interrupted_suite_goes_on(workspace: Path, suite: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        module.run(
            EvaluateConfig(workspace=workspace, suite=str(suite), model="tiny-idefics", test_size=3),
            InterruptedProgress(after=7),
        )
    report = evaluated(workspace, suite, test_size=3)
    assert any("evaluated before" in note for note in report.remarks if note.startswith("shapes"))
    assert {row["dataset"] for row in report.rows()} == {"shapes", "more"}


def test_what_others_reported_stands_below_each_data_set(workspace: Path, suite: Path) -> None:
    report = evaluated(workspace, suite)
    [(name, first), other] = report.reports
    known = tuple(replace(figure, shots=2) for figure in published("idefics-9b", "vqav2") if figure.shots == 32)
    shown = SuiteReport(report.title, (), reports=((name, replace(first, published=known)), other))
    with (console := Console(width=80)).capture() as captured:
        console.print(shown.table())
    lines = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert "reported: i2i [2] – – 58.07" in lines
    assert not any(line.startswith("reported, ") for line in lines)
    other = tuple(replace(figure, metric="okvqa-accuracy") for figure in known)
    shown = SuiteReport(report.title, (), reports=((name, replace(first, published=other)),))
    with (console := Console(width=80)).capture() as captured:
        console.print(shown.table())
    assert "reported, okvqa-accuracy: i2i [2]" in " ".join(captured.get().replace("–", "").split())
    with (console := Console(width=80)).capture() as captured:
        console.print(replace(first, published=(*known, *other)).table())
    text = captured.get()
    assert text.index("Reported by others\nvqa-accuracy") < text.index(
        "by a metric that is not computed here\nokvqa-acc"
    )
    assert max(map(len, text.splitlines())) <= 80
    assert any(line.startswith("[2] MimIC, Hyper-ICL; protocol differs:") for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[evaluate]\nshots = [1]\n", "names no data sets"),
        ("[datasets.shapes]\nshot = [1]\n", r"unknown key 'shot' in table \[datasets.shapes\]"),
        ("[evaluate]\nshots = 'x'\n[datasets.a]\n", r"table \[evaluate\], key 'shots'"),
        ("[evaluate]\ndataset = 'a'\n[datasets.a]\n", "dataset cannot be set in a suite"),
        ("evaluate = 3\n[datasets.a]\n", "'evaluate' must be a table"),
        ("[datasets.a]\nprepared_with = 'first'\n", "prepared_with must be a table of options"),
        ("metods = 1\n[datasets.a]\n", "unknown key 'metods'"),
        ("[datasets.a\n", "not valid TOML"),
    ],
)
def test_a_malformed_suite_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_suite(str(tmp_path / "bad.toml"))
    assert "bad.toml" in caught.value.message
    assert "\n" not in str(caught.value)


def test_names_that_do_not_exist(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["evaluate", "--workspace", str(workspace), "--model", "tiny-idefics", "--suite"]
    for options, message in (
        (["open-flaming"], "did you mean 'open-flamingo'"),
        (["no/such.toml"], "suite no/such.toml does not exist"),
        (["vl-icl"], "none of the data sets of suite vl-icl is prepared"),
        (["vl-icl", "--dataset", "shapes"], "--suite names the data sets"),
    ):
        capsys.readouterr()
        assert run([*base, *options]) != 0
        assert message in capsys.readouterr().err


def test_an_error_names_its_data_set(workspace: Path, suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["evaluate", "--workspace", str(workspace), "--model", "tiny-idefics", "--suite", str(suite)]
    assert run([*base, "--method", "i2i"]) != 0
    assert "error: shapes: " in capsys.readouterr().err


MODEL = ["--model", "tiny-idefics"]


def test_an_unknown_data_set_is_an_error(workspace: Path, suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite.write_text(SUITE.replace("vqav2", "vqav22"))
    assert run(["evaluate", "--workspace", str(workspace), *MODEL, "--suite", str(suite)]) == 2
    shown = capsys.readouterr().err
    assert "suite mine: 'vqav22' is neither prepared nor the name of a data set" in shown
    assert "did you mean 'vqav2'? otherwise run `icltool prepare READER --name vqav22`" in shown


def test_what_is_prepared_otherwise_is_left_out(workspace: Path, suite: Path) -> None:
    """For another task, without the index set of another data set, or with other options than the protocol's."""
    suite.write_text(
        SUITE.replace("shots = [2]\n", "shots = [2]\ntask = 'caption'\n")
        .replace("[datasets.vqav2]\n", "[datasets.vqav2]\nprepared_with = { split = 'x' }\n[datasets.'shapes+okvqa']\n")
        .replace('task = "vqa"\n', "task = 'vqa'\nprepared_with = { index_images = 60, seed = 0 }\n")
    )
    report = evaluated(workspace, suite)
    assert [name for name, _ in report.reports] == ["shapes"]
    assert list(report.remarks[:4]) == [
        "more is not prepared for task caption: run `icltool prepare READER --name more --task caption --root DIR`",
        "vqav2 is not prepared: run `icltool prepare vqav2 --root DIR --option split=x`",
        "shapes+okvqa: demonstrations are of okvqa, which is not prepared: "
        "run `icltool prepare okvqa --task vqa --root DIR`",
        "shapes: protocol differs: the data set was prepared with index_images=30, not index_images=60; "
        "`icltool prepare shapes --task vqa --root DIR --option index_images=60 --option seed=0` prepares it so",
    ]
    suite.write_text("[datasets.shapes]\ntask = 'caption'\n")
    with pytest.raises(StoreError, match="none of the data sets of suite mine is prepared") as caught:
        evaluated(workspace, suite)
    assert str(caught.value.hint).startswith("run `icltool prepare shapes --task caption")


def test_the_index_set_of_another_data_set(workspace: Path, suite: Path) -> None:
    suite.write_text(SUITE.replace("[datasets.vqav2]\n", "").replace("shots = [2]\n", "index_dataset = 'shapes'\n"))
    report = evaluated(workspace, suite)
    assert any(note.startswith("more: demonstrations are examples of shapes") for note in report.remarks)


def test_faults_of_all_data_sets_show_before_the_first_is_evaluated(workspace: Path, suite: Path) -> None:
    suite.write_text(SUITE.replace("shots = [2]\n", "methods = ['i2i']\n"))
    before = sorted(workspace.glob("evaluations/*"))
    with pytest.raises(StoreError, match=r"^more: more \(vqa\) has no embeddings"):
        evaluated(workspace, suite, test_size=5)
    assert sorted(workspace.glob("evaluations/*")) == before


def test_report_and_exports_read_what_a_suite_evaluated(
    workspace: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--workspace", str(workspace)]
    assert run(["evaluate", *at, *MODEL, "--suite", str(suite), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["dataset"] for row in shown["rows"]} == {"shapes", "more"}
    folders = [str(next((workspace / "evaluations").glob(f"{name}-vqa-*"))) for name in ("shapes", "more")]
    table = tmp_path / "results.csv"
    assert run(["export", "results", *at, "--input", ",".join(folders), "--format", "csv", "--output", str(table)]) == 0
    assert all(f"{Path(folder).name}," in table.read_text() for folder in folders)
    assert run(["report", *at, *folders, "--output", str(tmp_path / "page.html")]) == 0
    assert all(Path(folder).name in (tmp_path / "page.html").read_text() for folder in folders)


@pytest.mark.parametrize("name", ["open-flamingo", "vl-icl"])
def test_the_shipped_suites_name_what_there_is(name: str) -> None:
    suite = read_suite(name)
    registry = load_registry()
    assert set(suite.datasets) <= set(registry.names("datasets"))
    assert suite.summary
    for dataset, options in suite.datasets.items():
        config = EvaluateConfig(**{**options, "dataset": dataset, "model": "tiny-idefics"})  # type: ignore[arg-type]
        assert {metric.partition(":")[0] for metric in config.metrics} <= set(registry.names("metrics"))
        assert set(config.methods) <= set(registry.names("retrievers"))
    assert set(shipped_suites()) == {"open-flamingo", "vl-icl"}
    assert json.dumps(suite.datasets)
