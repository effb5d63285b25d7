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

from tests.plugin.distributions import CHECKOUT

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


def test_the_tutorial_in_its_readme_works_as_written(tmp_path: Path) -> None:
    """The code blocks of the tutorial make a package whose component and tests do what the text says."""
    readme = (SOURCE / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(toml|python)\n(.*?)```", readme, flags=re.DOTALL)
    metadata, component, hooks, test = (text for _, text in blocks)
    package = tmp_path / "icltool_halves"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "halves.py").write_text(component)
    (package / "plugin.py").write_text(hooks)
    (tmp_path / "test_halves.py").write_text(test)
    mended = test.replace('    with pytest.raises(AssertionError, match="DataError"):\n    ', "")
    (tmp_path / "test_mended.py").write_text(mended.replace("icltool_halves.halves", "icltool_halves.mended"))
    (package / "mended.py").write_text(
        component.replace("np.arange(int(self.odd), len(index), 2)", "np.arange(len(index))")
    )
    info = tmp_path / "icltool_halves-0.1.0.dist-info"
    info.mkdir()
    name = re.search(r'^name = "(.*)"', metadata, flags=re.MULTILINE)
    entry = re.search(r"^\[project\.entry-points\.icltool\]\n(.*)", metadata, flags=re.MULTILINE)
    assert name is not None
    assert entry is not None
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.group(1)}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[icltool]\n" + entry.group(1).replace('"', "") + "\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CHECKOUT)])}
    code = (
        "from icltool.plugin.manager import load_registry as r; r = r()\n"
        "print([r.get('samplers', n).distribution for n in ('even-half', 'odd-half')], r.create('samplers', 'odd-half').odd)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "['icltool-halves', 'icltool-halves'] True", done.stderr
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_halves.py", "test_mended.py"]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert "2 passed" in done.stdout, done.stdout
