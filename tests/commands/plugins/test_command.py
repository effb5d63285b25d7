"""`icltool plugins`, with real distributions on the path: good, broken and duplicate ones."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from icltool.cli.app import run
from icltool.cli.output import print_list
from icltool.commands.plugins.components import describe
from icltool.plugin.manager import load_registry
from tests.processes import Child

GOOD = """
from icltool.plugin import Registration, hookimpl

@hookimpl
def icltool_samplers():
    return [Registration("mine", "good_plugin:Mine", "my sampler", {"depth": 2}),
            Registration("gone", "no_such_module:Thing", "cannot be imported"),
            Registration("random", "good_plugin:Mine", "claims a name that is taken")]

class Mine:
    '''Draws what I like.'''
    def __init__(self, depth: int = 1) -> None:
        pass
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with two installed distributions: icltool-good 1.2, and icltool-broken 0.1 whose module fails."""
    for name, version, source in (("good", "1.2", GOOD), ("broken", "0.1", "raise RuntimeError('out of order')")):
        (tmp_path / f"{name}_plugin.py").write_text(source)
        info = tmp_path / f"icltool_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: icltool-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[icltool]\n{name} = {name}_plugin\n")
    return tmp_path


@pytest.fixture
def icltool(site: Path) -> Callable[..., Child]:
    """Runs icltool where both are installed, beside what is installed here."""

    def call(*arguments: str) -> Child:
        def work() -> int:
            sys.path.insert(0, str(site))
            load_registry.cache_clear()
            return run(arguments)

        with Child(work) as child:
            child.wait()
        return child

    return call


def test_show_names_where_a_data_set_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "show", "datasets", "easy-vqa"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "{train,test}/images 5,000 images of 64 x 64, 3 MB packed from the Python package easy-vqa" in shown
    assert "licence MIT" in shown
    assert run(["plugins", "show", "datasets", "easy-vqa", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"]["licence"] == "MIT"


def test_the_list_shows_good_broken_and_duplicate_plugins(icltool: Callable[..., Child]) -> None:
    rows = json.loads(icltool("plugins", "list", "--json").out)
    by_name = {(r["kind"], r["name"], r["distribution"]): r for r in rows}
    assert by_name["samplers", "mine", "icltool-good"] == {
        "kind": "samplers",
        "name": "mine",
        "distribution": "icltool-good",
        "version": "1.2",
        "status": "ok",
        "summary": "my sampler",
    }
    assert by_name["plugin", "broken", "icltool-broken"]["status"] == "broken: RuntimeError: out of order"
    for owner in ("icltool", "icltool-good"):
        assert by_name["samplers", "random", owner]["status"] == "duplicate: icltool and icltool-good"
    assert by_name["samplers", "mix", "icltool"]["status"] == "ok"


def test_the_list_of_one_kind_still_names_broken_plugins(icltool: Callable[..., Child]) -> None:
    rows = json.loads(icltool("plugins", "list", "--kind", "metrics", "--json").out)
    assert {row["kind"] for row in rows} == {"metrics", "plugin"}


def test_show_describes_a_component(icltool: Callable[..., Child]) -> None:
    content = json.loads(icltool("plugins", "show", "sampler", "mine", "--json").out)
    assert content["target"] == "good_plugin:Mine"
    assert content["options"] == [{"name": "depth", "type": "int", "default": "2", "description": ""}]
    assert content["documentation"] == "Draws what I like."
    assert "Draws what I like." in icltool("plugins", "show", "samplers", "mine").out


def test_show_says_why_a_component_cannot_be_imported(icltool: Callable[..., Child]) -> None:
    answer = icltool("plugins", "show", "samplers", "gone", "--json")
    assert answer.wait() == 0
    assert "No module named 'no_such_module'" in json.loads(answer.out)["status"]


def test_a_duplicate_name_is_refused_with_both_owners(icltool: Callable[..., Child]) -> None:
    answer = icltool("plugins", "show", "samplers", "random")
    assert answer.wait() == 2
    assert "icltool-good 1.2" in answer.err
    assert "uninstall" in answer.err


def test_doctor_reports_the_broken_plugin_and_goes_on(icltool: Callable[..., Child], tmp_path: Path) -> None:
    answer = icltool("doctor", "--json", "--workspace", str(tmp_path / "w"))
    assert answer.wait() == 0
    content = json.loads(answer.out)
    assert any("broken: RuntimeError: out of order" in row["value"] for row in content["sections"]["plugins"])
    assert any("icltool-broken" in line for line in content["problems"])


def test_lines_fit_into_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["list"], ["show", "datasets", "vqav2"], ["show", "models", "idefics-9b"]):
        assert run(["plugins", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if len(line) > 80 and len(line.split()) > 1] == []


def test_a_long_name_and_a_long_word_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name, path = "n" * 30, "/" + "a" * 50
    print_list("title", [("short", "one two three four five"), (name, f"at {path} now")])
    assert capsys.readouterr().out.splitlines() == [
        "title",
        "  short                       one two three four",
        "                              five",
        f"  {name}",
        "                              at",
        f"                              {path}",
        "                              now",
        "",
    ]


def test_no_documentation_on_the_screen_points_to_a_class() -> None:
    for item in load_registry().components:
        documentation = describe(item.kind, item.name).documentation
        assert not re.search(r"\b[Ss]ee `?[A-Z]\w+", documentation), f"{item.kind} {item.name}: {documentation}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--kind", "modells"], "unknown kind of component 'modells'"),
        (["show", "model", "idefics"], "unknown model 'idefics'"),
        (["shwo"], "no such command 'shwo'"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_the_table_names_every_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list"]) == 0
    output = capsys.readouterr().out
    for name in ("idefics-9b", "coco2017", "vit-l-14", "mix", "infoscore", "i2i", "cider", "lever-lm", "local"):
        assert name in output
