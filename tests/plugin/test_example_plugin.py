"""plugins/icltool-example, installed into a fresh environment and used there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.plugin.distributions import CHECKOUT, ask

SOURCE = CHECKOUT / "plugins" / "icltool-example"


class Environment:
    """A virtual environment that sees this one's packages and this checkout, and has the plugin installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugin = folder / "icltool-example"
        shutil.copytree(SOURCE, self.plugin, ignore=shutil.ignore_patterns("__pycache__", "dist", "*.egg-info"))
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        binaries = "Scripts" if os.name == "nt" else "bin"
        self.python = folder / "venv" / binaries / "python"
        site = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        # addsitedir also follows the path files of the outer environment, editable installations among them.
        outer = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        lines = [str(CHECKOUT), *(f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(outer))]
        (site / "outer.pth").write_text("\n".join(lines) + "\n")
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
        self.run("-m", "pip", "install", *options, str(self.plugin))

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ICLTOOL", "VIRTUAL_ENV"))}
        done = subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            cwd=cwd or self.folder,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("example-plugin"))


@pytest.mark.slow
def test_it_is_listed_with_its_distribution(environment: Environment) -> None:
    rows = json.loads(environment.run("-m", "icltool", "plugins", "list", "--json").stdout)
    ours = [row for row in rows if row["distribution"] == "icltool-example"]
    assert {(row["kind"], row["name"]) for row in ours} == {
        ("samplers", "farthest"),
        ("scorers", "word-overlap"),
        ("datasets", "jsonl"),
        ("learners", "mean-shift"),
        ("interventions", "mean-shift"),
    }
    assert {(row["version"], row["status"]) for row in ours} == {("0.1.0", "ok")}


@pytest.mark.slow
def test_its_own_tests_pass_there(environment: Environment) -> None:
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=environment.plugin)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 20


@pytest.mark.slow
def test_its_dataset_is_prepared_by_the_command_line(environment: Environment) -> None:
    from icltool.testing import make_examples

    root = environment.folder / "pictures"
    for split, count in (("train", 12), ("validation", 5)):
        examples = make_examples(root / split, count, size=16)
        lines = [json.dumps({"image": f"{split}/{Path(e.image).name}", "caption": e.label}) for e in examples]
        (root / f"{split}.jsonl").write_text("\n".join(lines))
    arguments: Sequence[str] = ("prepare", "jsonl", "--root", str(root), "--workspace", "ws")
    environment.run("-m", "icltool", *arguments)
    manifest = json.loads((environment.folder / "ws" / "datasets" / "jsonl" / "caption" / "dataset.json").read_text())
    assert {name: split["examples"] for name, split in manifest["splits"].items()} == {"train": 12, "validation": 5}


@pytest.mark.slow
def test_its_learner_and_intervention_work_on_the_command_line(environment: Environment) -> None:
    tail = ("--workspace", "ws-shift", "--dataset", "shapes", "--model", "tiny-idefics", "--device", "cpu")
    sizes = ("--option", "index_images=104", "--option", "validation_images=24")
    environment.run("-m", "icltool", "prepare", "shapes", "--task", "caption", "--workspace", "ws-shift", *sizes)
    environment.run("-m", "icltool", "train", "mean-shift", "--option", "shots=2", "--option", "examples=8", *tail)
    methods = ("--method", "zero-shot", "--method", "mean-shift")
    environment.run("-m", "icltool", "evaluate", *methods, "--test-size", "6", *tail)
    [answers] = (environment.folder / "ws-shift" / "evaluations").rglob("*mean-shift*.jsonl")
    assert len(answers.read_text().splitlines()) == 6
    [card] = (environment.folder / "ws-shift" / "checkpoints").rglob("README.md")
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
        "answer = [found, registry.create('samplers', 'odd-first').odd]"
    )
    assert ask(code, tmp_path) == [["icltool-parity", "icltool-parity"], True]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CHECKOUT)])}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "tests"]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert "2 passed" in done.stdout, done.stdout


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text, flags=re.MULTILINE)
    assert found is not None, pattern
    return found.group(1)
