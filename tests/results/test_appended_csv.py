"""The CSV that grows: read back by csv, whatever is in it."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.errors import StoreError
from icltool.releases import __version__
from icltool.results import appended_csv
from icltool.results.appended_csv import append_results, append_rows, check_appendable, flattened
from icltool.store.evaluations import MetricResult, SettingResult

KEY = ("key",)


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_rows_add_up_under_one_header(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.csv"
    first = append_rows(file, [{"key": "a", "cider": 1.5}, {"key": "b", "cider": 0.1 + 0.2}], KEY)
    assert (first.added, first.known, first.new_columns) == (2, 0, ())
    again = append_rows(file, [{"key": "b", "cider": 9.0}, {"key": "c", "cider": None}, {"key": "c"}], KEY)
    assert (again.added, again.known) == (1, 2)
    assert read(file) == [
        {"key": "a", "cider": "1.5"},
        {"key": "b", "cider": repr(0.1 + 0.2)},
        {"key": "c", "cider": ""},
    ]
    before = file.read_bytes()
    assert append_rows(file, [{"key": "a"}], KEY).added == 0
    assert file.read_bytes() == before


def test_columns_are_those_of_both(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    append_rows(file, [{"key": "a", "bleu": 1}], KEY)
    assert append_rows(file, [{"key": "b", "cider": 2, "training.lr": 5e-05}], KEY).new_columns == (
        "cider",
        "training.lr",
    )
    assert append_rows(file, [{"cider": 3, "key": "c"}], KEY).new_columns == ()
    assert list(read(file)[0]) == ["key", "bleu", "cider", "training.lr"]
    assert [row["cider"] for row in read(file)] == ["", "2", "3"]
    assert read(file)[1]["training.lr"] == "5e-05"


def test_a_key_of_several_columns(tmp_path: Path) -> None:
    file, key = tmp_path / "r.csv", ("evaluation", "seed")
    rows = [{"evaluation": "x", "seed": seed, "cider": seed} for seed in (0, 1, 0)]
    assert append_rows(file, rows, key).added == 2
    assert append_rows(file, [{"evaluation": "x", "seed": np.int64(1)}, {"evaluation": "y", "seed": 1}], key).added == 1
    with pytest.raises(ValueError, match="lacks seed"):
        append_rows(file, [{"evaluation": "x"}], key)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1+1", "\n=cmd|' /C calc'!A0", "＝1", "-"])
def test_no_text_is_a_formula(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.csv"
    append_rows(file, [{"key": "a", text: text}], KEY)
    append_rows(file, [{"key": "b", text: text}], KEY)
    assert read(file) == [{"key": key, f"'{text}": f"'{text}"} for key in "ab"]
    assert append_rows(file, [{"key": "b", text: text}], ["key", text]).known == 1


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    values = {"a": -0.5, "b": np.float64(-2.0), "c": math.nan, "d": -3, "e": True, "f": [1, -2], "g": {"x": None}}
    append_rows(file, [{"key": "k", **values}], KEY)
    [row] = read(file)
    assert [row[name] for name in "abcdefg"] == ["-0.5", "-2.0", "", "-3", "true", "[1, -2]", '{"x": null}']


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=12), max_size=4), max_size=5), st.data())
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], data: Any) -> None:
    """Appended in two parts, read by csv: each cell is what was given, but for the guard, line ends and what no file holds."""
    file = tmp_path_factory.mktemp("csv") / "r.csv"
    keyed = [{**row, "key": f"k{n}"} for n, row in enumerate(rows)]
    cut = data.draw(st.integers(0, len(keyed)))
    append_rows(file, keyed[:cut], KEY)
    append_rows(file, keyed[cut:], KEY)
    earlier_rows = read(file) if file.exists() else []
    assert len(earlier_rows) == len(keyed)
    for row, given_row in zip(earlier_rows, keyed, strict=True):
        cells = {appended_csv._cell(name): appended_csv._cell(value) for name, value in given_row.items()}
        assert {name: value for name, value in row.items() if value} == {n: v for n, v in cells.items() if v}
        assert not any(value.lstrip()[:1] in appended_csv._FORMULA for value in (*row, *row.values()) if value.strip())


def test_what_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_bytes('\ufeffkey,note\r\na,"mine, ""yes""\r\ntwo"\r\nb\r\n\r\n'.encode())
    append_rows(file, [{"key": "a"}, {"key": "c", "note": "n"}], KEY)
    assert [(row["key"], row["note"]) for row in read(file)] == [("a", 'mine, "yes"\ntwo'), ("b", ""), ("c", "n")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name,score\nx,1\n", "is a different table: it lacks column key, but name, score"),
        (b"key;cider\na;1\n", "are its cells separated by other signs than commas"),
        (b'key\n"a\n', "line 2, is not valid CSV"),
        (b"key,key\na,b\n", "has two columns 'key'"),
        (b"key\na,b\n", "row 1 has 2 cells for 1 columns"),
        (b"key\n\xff\n", "is not UTF-8 text"),
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "r.csv"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"r\.csv") as caught:
        append_rows(file, [{"key": "a"}], KEY)
    assert words in caught.value.message
    assert file.read_bytes() == content


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        append_rows(tmp_path, [{"key": "a"}], KEY)
    monkeypatch.setattr(appended_csv, "WAIT", 0.1)
    with appended_csv._alone(tmp_path / "r.csv"), pytest.raises(StoreError, match="has been locked by process"):
        append_rows(tmp_path / "r.csv", [{"key": "a"}], KEY)


def _append(file: Path, worker: int) -> None:
    for n in range(8):
        append_rows(file, [{"key": f"{worker}-{n}", f"column{worker}": n}, {"key": f"shared-{n}"}], KEY)


def test_processes_append_at_once(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(file, worker)) for worker in range(3)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    rows = read(file)
    keys = [row["key"] for row in rows]
    assert sorted(keys) == sorted(
        {*(f"{w}-{n}" for w in range(3) for n in range(8)), *(f"shared-{n}" for n in range(8))}
    )
    assert all(
        row[f"column{w}"] == str(n) for w in range(3) for n in range(8) for row in rows if row["key"] == f"{w}-{n}"
    )
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_nested_options_become_columns() -> None:
    nested = {"lr": 1, "trainer": {"devices": 2, "deep": {"x": None}}, "empty": {}}
    assert flattened(nested, "training.") == {
        "training.lr": 1,
        "training.trainer.devices": 2,
        "training.trainer.deep.x": None,
    }
    assert json.dumps(flattened({}, "a")) == "{}"


def test_what_cannot_be_appended_to_is_known_beforehand(tmp_path: Path) -> None:
    file = tmp_path / "new" / "r.csv"
    check_appendable(file)
    assert not file.parent.exists()
    (tmp_path / "file").touch()
    for wrong in (tmp_path, tmp_path / "file" / "r.csv"):
        with pytest.raises(StoreError):
            check_appendable(wrong)


#: What `evaluate --csv` wrote of these settings before there was another way to it, but for date and release.
WRITTEN = """\
evaluation,date,icltool,dataset,task,model,model_path,method,shots,seed,setting,weights,queries,bleu-1,cider,bleu-1 low,\
bleu-1 high,cider low,cider high,seconds,dtype,generation.num_beams,generation.length_penalty,model.quantization,\
model.prompt_style,model.image_size,training.alpha,training.deep.a
shapes-0a,DATE,shapes,caption,tiny-blip2,,zero-shot,0,0,abc,,8,0.3333333333333333,12.5,0.1,0.5,1.0,,1.25,auto,,,,,,,
shapes-1b,DATE,shapes,caption,tiny-blip2,rel,'=evil,2,1,,,8,,-12.5,,,1.0,2,0.5,bfloat16,3,0.6,4bit,flat,40,,
shapes-1b,DATE,shapes,caption,tiny-blip2,rel,live,0,0,e,/x/v,8,,3,,,1.0,2,0.5,bfloat16,3,0.6,4bit,flat,40,0.5,"[1, 2]"
"""


def test_settings_stand_as_they_always_did(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    bare = {
        "dataset": "shapes",
        "task": "caption",
        "model": "tiny-blip2",
        "model_path": None,
        "dtype": "auto",
        "device": "cpu",
    }
    options = {
        "model_path": "rel",
        "dtype": "bfloat16",
        "length_penalty": 0.6,
        "num_beams": 3,
        "quantization": "4bit",
        "prompt_style": "flat",
        "adapter_options": {"image_size": 40},
    }
    zero = {"bleu-1": MetricResult(1 / 3, 0.1, 0.5), "cider": MetricResult(12.5, 1.0, math.nan)}
    about = {"options": {"alpha": 0.5, "deep": {"a": [1, 2]}}}
    settings = [
        SettingResult("=evil", 2, 1, 8, {"cider": MetricResult(-12.5, 1.0, 2)}, 0.5),
        SettingResult(
            "live",
            0,
            0,
            8,
            {"cider": MetricResult(3, 1.0, 2)},
            0.5,
            {"digest": "e", "intervention": {"file": "/x/v", "about": about}},
        ),
    ]
    first = SettingResult("zero-shot", 0, 0, 8, zero, 1.25, {"digest": "abc"})
    assert append_results(file, "shapes-0a", bare, [first], {}) == f"{file}: 1 rows added"
    line = append_results(file, "shapes-1b", {**bare, **options}, settings, {})
    assert line.startswith(
        f"{file}: 2 rows added, new columns: generation.num_beams, generation.length_penalty, model."
    )
    text = file.read_bytes().decode()
    assert re.sub(rf",20\d\d-[^,]+,{re.escape(__version__)},", ",DATE,", text) == WRITTEN
    assert append_results(file, "shapes-0a", bare, [first], {}) == f"{file}: 1 there already"
    assert append_results(file, "shapes-0a", bare, [], {}) == f"{file}: nothing to add"
    assert file.read_bytes().decode() == text
