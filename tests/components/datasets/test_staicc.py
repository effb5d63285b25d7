"""The text sets of StaICC, from made-up files, and from the installed package."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.components.datasets.staicc import SETS, StaiccOptions, StaiccReader, toolkit_split
from icltool.contracts import Example
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from icltool.store.records import open_dataset
from icltool.testing import check_dataset
from tests.components.datasets.builders import read_all
from tests.components.models import tiny

TASK = "classification"
Rows = list[tuple[list[str], int]]


def made_up(count: int = 2_060) -> Rows:
    """Rows of financial_phrasebank, whose splits take the fewest: 2,048."""
    rows = [([f"Sales of firm {row}  rose ."], row % 3) for row in range(count)]
    rows[2_000] = (["sales of FIRM 7 rose"], 1)
    return rows


def write(folder: Path, rows: object, name: str = "financial_phrasebank") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dataset").write_bytes(pickle.dumps(rows))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "StaICC" / "cached_dataset", made_up())


def reader(name: str = "financial_phrasebank") -> StaiccReader:
    return StaiccReader(StaiccOptions.model_validate({"set": name}))


def refused(root: Path | None, name: str = "financial_phrasebank") -> DataError:
    with pytest.raises(DataError) as caught:
        reader(name).check(root, TASK, False)
    assert "\n" not in caught.value.message
    assert "StaICC" in str(caught.value.hint)
    return caught.value


def test_it_conforms(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(reader(), root, TASK, tmp_path_factory.mktemp("ws"))


@pytest.mark.parametrize(
    ("name", "firsts"),
    [
        ("trec", [[1501, 524, 3436], [5809, 4425, 1121], [2926, 2410, 1649]]),
        ("subjective", [[2018, 704, 4619], [7810, 5949, 1515], [3937, 3284, 2241]]),
    ],
)
def test_the_rows_that_the_toolkit_draws(name: str, firsts: list[list[int]]) -> None:
    parts = toolkit_split(SETS[name].rows, (1_024, 4_096, 512))
    assert [part[:3] for part in parts] == firsts
    rows = [row for part in parts for row in part]
    assert len(set(rows)) == len(rows) == 5_632
    assert max(rows) < SETS[name].rows


def test_examples(root: Path) -> None:
    splits = read_all(reader(), root, TASK)
    assert {name: len(examples) for name, examples in splits.items()} == {
        "train": 512,
        "validation": 512,
        "development": 1_024,
    }
    rows, words = made_up(), ("negative", "neutral", "positive")
    [development, train, queries] = toolkit_split(len(rows), (1_024, 512, 512))
    for name, places in (("train", train), ("validation", queries), ("development", development)):
        assert [e.id for e in splits[name]] == places
        assert [e.label for e in splits[name]] == [words[rows[row][1]] for row in places]
    first, row = splits["train"][0], train[0]
    text, label = f"Sales of firm {row} rose .", words[row % 3]
    assert first == Example(row, "", row, text, label, (label,), choices=words)
    groups = Counter(e.group for examples in splits.values() for e in examples)
    assert (
        groups["text: sales of firm 7 rose"] == sum(row in {*train, *queries, *development} for row in (7, 2_000)) == 2
    )


def test_the_folder_may_be_any_above_the_file(root: Path) -> None:
    for folder in (root, root.parent, root.parent.parent):
        assert reader().check(folder, TASK, False).files == (root / "financial_phrasebank.dataset",)


def test_a_count_that_is_not_the_official_one_is_noted(root: Path) -> None:
    assert reader().check(root, TASK, True).remarks == (
        "financial_phrasebank.dataset has 2,060 texts; the official split has 2,264",
    )


def test_empty_texts_are_left_out_and_the_others_stay_where_they_are(root: Path) -> None:
    rows = made_up()
    [_, train, _] = toolkit_split(len(rows), (1_024, 512, 512))
    rows[train[1]] = ([" "], 0)
    write(root, rows)
    assert [e.id for e in read_all(reader(), root, TASK)["train"]] == [train[0], *train[2:]]
    assert "financial_phrasebank.dataset: 1 empty text of train left out" in reader().check(root, TASK, False).remarks


class Bomb:
    """A pickle of it runs a command when it is read carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_file_that_asks_for_a_function_is_refused_and_nothing_runs(root: Path, tmp_path: Path) -> None:
    write(root, [(["fine"], 0), Bomb(tmp_path / "ran")])
    message = refused(root).message
    assert message.startswith(str(root / "financial_phrasebank.dataset"))
    assert "which is never loaded" in message
    assert not (tmp_path / "ran").exists()
    pickle.loads((root / "financial_phrasebank.dataset").read_bytes())
    assert (tmp_path / "ran").exists()  # read carelessly, it would have


FAULTS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda root: (root / "financial_phrasebank.dataset").unlink(), "no StaICC in .*financial_phrasebank.dataset is missing"),
    (lambda root: (root / "financial_phrasebank.dataset").write_bytes(b"\x80"), "is not a pickled list of texts"),
    (lambda root: (root / "financial_phrasebank.dataset").write_bytes(b""), "is not a pickled list of texts"),
    (lambda root: write(root, {"a": 1}), "is not a pickled list of texts: it is {'a': 1}"),
    (lambda root: write(root, [*made_up(), (["x"], 3)]), "row 2060 is not a text with a label from 0 to 2: .*3"),
    (lambda root: write(root, [(["x"], True)]), "row 0 is not a text with a label"),
    (lambda root: write(root, [("x", 0)]), "row 0 is not a text with a label"),
    (lambda root: write(root, [(["x", "y"], 0)]), "row 0 is not a text with a label"),
    (lambda root: write(root, [(["x"], -1)]), "row 0 is not a text with a label"),
    (lambda root: write(root, made_up(2_047)[:2_047]), "has 2,047 texts, and its splits take 2,048"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_faults_name_file_and_row(fault: Callable[[Path], Any], message: str, root: Path) -> None:
    fault(root)
    with pytest.raises(DataError, match=message):
        reader().check(root, TASK, False)
    refused(root)


def test_the_set_must_be_named() -> None:
    with pytest.raises(ConfigError, match="needs the name of a set") as caught:
        component("datasets", "staicc")
    assert "trec" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="set"):
        component("datasets", "staicc", set="imdb")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "StaICC", None)
    assert refused(None).message == "data set staicc needs the package StaICC, or --root"


def test_from_the_file_to_the_figures(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "staicc", "--root", str(root), "--option", "set=financial_phrasebank", *workspace]) == 0
    name = "staicc-financial_phrasebank"
    dataset = open_dataset(tmp_path / "ws" / "datasets" / name / TASK)
    assert dataset.manifest["image_namespace"] == name
    weights = str(tiny.gpt2(tmp_path / "gpt2"))
    chosen = ["--dataset", name, *workspace, "--model", "text-llm", "--model-path", weights]
    chosen += ["--method", "random", "--shots", "1"]
    capsys.readouterr()
    assert run(["prompts", *chosen, "--limit", "1"]) == 0
    one = r"sentence: (?:Sales of firm \d+ rose \.|sales of FIRM 7 rose) sentiment:"
    assert re.search(rf"{one} (?:negative|neutral|positive)\n{one}", capsys.readouterr().out)
    assert run(["evaluate", *chosen, "--limit", "6", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert 0 <= row["accuracy"] <= 100
    assert "macro-f1" in row


@pytest.mark.external
@pytest.mark.skipif(importlib.util.find_spec("StaICC") is None, reason="the package StaICC is not installed")
@pytest.mark.parametrize("name", SETS)
def test_the_installed_package(name: str) -> None:
    report = reader(name).check(None, TASK, False)
    assert [remark for remark in report.remarks if "official" in remark] == []
    splits = read_all(reader(name), None, TASK)
    empty = 4 if name == "tweet_eval_hate" else 0
    assert [len(e) for e in splits.values()] == [SETS[name].index - empty, 512, 1_024]
    assert {e.label for e in splits["train"]} == set(SETS[name].words)
    if name == "trec":
        assert [e.id for e in splits["validation"][:3]] == [2926, 2410, 1649]
    assert "StaICC" not in sys.modules  # it is read, not imported
