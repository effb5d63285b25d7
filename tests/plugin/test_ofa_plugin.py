"""plugins/icltool-ofa: listed at no cost, clear where no weights are, and its own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.distributions import CHECKOUT, ask

SOURCE = CHECKOUT / "plugins" / "icltool-ofa"
NAMES = {"tiny-ofa", "ofa-tiny", "ofa-medium", "ofa-base", "ofa-large", "ofa-huge", "ofa-distilled"}


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    """What an installation leaves beside the package, from its pyproject.toml."""
    project = (SOURCE / "pyproject.toml").read_text()
    entry = re.search(r"^\[project\.entry-points\.icltool\]\n(.*)", project, flags=re.MULTILINE)
    assert entry is not None
    info = tmp_path / "icltool_ofa-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: icltool-ofa\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[icltool]\n" + entry.group(1).replace('"', "") + "\n")
    return tmp_path


def test_listing_its_models_imports_nothing_heavy(metadata: Path) -> None:
    code = (
        "found = [f for f in load_registry().found if f.distribution == 'icltool-ofa']\n"
        "heavy = [m for m in ('torch', 'transformers', 'safetensors', 'PIL') if m in sys.modules]\n"
        "answer = [[f.registration.name for f in found], heavy, load_registry().broken]"
    )
    names, heavy, broken = ask(code, metadata, SOURCE)
    assert (set(names), heavy, broken) == (NAMES, [], [])


@pytest.mark.parametrize("name", ["ofa-base", "ofa-distilled"])
def test_without_weights_the_error_says_what_to_do(metadata: Path, name: str) -> None:
    code = (
        "from icltool.errors import IclError\n"
        "try:\n"
        f"    load_registry().create('models', {name!r})\n"
        "except IclError as error:\n"
        "    answer = [type(error).__name__, error.message, error.hint]"
    )
    kind, message, hint = ask(code, metadata, SOURCE)
    assert (kind, message.count("\n")) == ("ConfigError", 0)
    assert name in message
    assert "--model-path" in hint


@pytest.mark.slow
def test_its_own_tests_pass() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(CHECKOUT)])}
    run = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(SOURCE), "tests"]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=SOURCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 80
