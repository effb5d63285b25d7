"""plugins/icltool-example, installed by pip and used where it is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from icltool.cli.app import run
from tests.plugin.distributions import CHECKOUT, ask, own_tests, put_first
from tests.processes import Child

SOURCE = CHECKOUT / "plugins" / "icltool-example"


@pytest.fixture
def icltool(site: Path) -> Callable[..., str]:
    """Runs a command, which must succeed, where it is installed; what it prints."""

    def call(*arguments: str) -> str:
        def work() -> int:
            put_first([site])
            return run(arguments)

        with Child(work) as child:
            assert child.wait() == 0, child.err
        return child.out

    return call


def test_it_is_listed_with_its_distribution(icltool: Callable[..., str]) -> None:
    rows = json.loads(icltool("plugins", "list", "--json"))
    ours = [row for row in rows if row["distribution"] == "icltool-example"]
    assert {(row["kind"], row["name"]) for row in ours} == {
        ("samplers", "farthest"),
        ("scorers", "word-overlap"),
        ("retrievers", "every-other"),
        ("datasets", "jsonl"),
        ("learners", "mean-shift"),
        ("interventions", "mean-shift"),
        ("commands", "check-jsonl"),
        ("tasks", "counting"),
    }
    assert {(row["version"], row["status"]) for row in ours} == {("0.1.0", "ok")}


def test_its_command_is_one_of_icltool(icltool: Callable[..., str], tmp_path: Path) -> None:
    assert re.search(r"check-jsonl +Check a folder", icltool("--help"))
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("")
    with pytest.raises(AssertionError, match="holds no example"):
        icltool("check-jsonl", str(tmp_path))


@pytest.mark.external
def test_its_own_tests_pass_there(site: Path, tmp_path: Path) -> None:
    """Not those of the checkout, beside which its own code would be imported."""
    shutil.copytree(SOURCE / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    passed = re.search(r"(\d+) passed", own_tests(tmp_path, site))
    assert passed is not None
    assert int(passed.group(1)) >= 20


def test_its_dataset_is_prepared_by_the_command_line(icltool: Callable[..., str], tmp_path: Path) -> None:
    from icltool.testing import make_examples

    root, workspace = tmp_path / "images", tmp_path / "ws"
    for split, count in (("train", 12), ("validation", 5)):
        examples = make_examples(root / split, count, size=16)
        lines = [json.dumps({"image": f"{split}/{Path(e.image).name}", "caption": e.label}) for e in examples]
        (root / f"{split}.jsonl").write_text("\n".join(lines))
    icltool("prepare", "jsonl", "--root", str(root), "--workspace", str(workspace))
    manifest = json.loads((workspace / "datasets" / "jsonl" / "caption" / "dataset.json").read_text())
    assert {name: split["examples"] for name, split in manifest["splits"].items()} == {"train": 12, "validation": 5}


@pytest.mark.external
def test_its_learner_and_intervention_work_on_the_command_line(icltool: Callable[..., str], workspace: Path) -> None:
    data = ("--workspace", str(workspace), "--dataset", "shapes", "--task", "caption")
    tail = (*data, "--model", "tiny-idefics", "--device", "cpu")
    icltool("train", "mean-shift", "--option", "shots=2", "--option", "examples=8", *tail)
    icltool("evaluate", "--method", "zero-shot", "--method", "mean-shift", "--test-size", "6", *tail)
    [answers] = (workspace / "evaluations").rglob("*mean-shift*.jsonl")
    assert len(answers.read_text().splitlines()) == 6
    [card] = (workspace / "checkpoints").rglob("README.md")
    assert "# mean-shift for tiny-idefics" in card.read_text()


def test_the_names_that_its_readme_lists_are_public() -> None:
    import icltool

    readme = (SOURCE / "README.md").read_text(encoding="utf-8")
    [section] = re.findall(r"## 6\..*?(?=## 7)", readme, flags=re.DOTALL)
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| .* \|$", section, flags=re.MULTILINE)))) - {"icltool"}
    assert len(named) >= 14
    for name in named:
        assert callable(getattr(icltool, name)), name


def test_the_tutorial_in_its_readme_works_as_written(tmp_path: Path) -> None:
    """The tutorial's code blocks, saved under their names, make a plugin that is found and passes its tests."""
    readme = (SOURCE / "README.md").read_text(encoding="utf-8")
    (metadata,) = re.findall(r"```toml\n(.*?)```", readme, flags=re.DOTALL)
    files = dict(re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", readme, flags=re.DOTALL))
    assert set(files) == {"icltool_parity/parity.py", "icltool_parity/plugin.py", "tests/test_parity.py"}
    for name, text in {**files, "icltool_parity/__init__.py": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    info = tmp_path / "icltool_parity-0.1.0.dist-info"
    info.mkdir()
    name = _one(r'^name = "(.*)"', metadata)
    entry = _one(r"^\[project\.entry-points\.icltool\]\n(.*)", metadata).replace('"', "")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[icltool]\n{entry}\n")
    code = (
        "registry = load_registry()\n"
        "found = [registry.get('samplers', name).distribution for name in ('even-first', 'odd-first')]\n"
        "answer = [found, registry.create('samplers', 'odd-first').options.odd]"
    )
    assert ask(code, tmp_path) == [["icltool-parity", "icltool-parity"], True]
    assert "2 passed" in own_tests(tmp_path, tmp_path)


def _one(pattern: str, text: str) -> str:
    match = re.search(pattern, text, flags=re.MULTILINE)
    assert match is not None, pattern
    return match.group(1)
