"""The project as a whole: static checks, the shape of the tree, and what the README promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [p for folder in ("icltool", "plugins", "tests") for p in (ROOT / folder).rglob("*.py")]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=lambda c: c[0]
)
def test_static_checks(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_imports_keep_their_direction() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_short_and_there_is_no_utils() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 450}
    assert not long
    assert not [p for p in SOURCES if p.name == "utils.py"]


def test_the_top_level_is_as_agreed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    if top:  # not in an unpacked archive
        agreed = {"icltool", "plugins", "profiles", "tests", "pyproject.toml", "CHANGELOG.md", "README.md", "LICENSE"}
        assert top <= agreed


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    commands = re.findall(r"^ {4}(.+)$|^\$ (.+)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    given = {a or b for a, b in commands}
    ci = (ROOT / ".ci" / "run").read_text().replace("--quiet ", "")
    assert 'pip install -e ".[dev]" && python -m pytest' in ci
    assert 'pip install -e ".[dev]" && python -m pytest' in given
    assert "pip install . && icltool demo" in given
