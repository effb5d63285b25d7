"""This project's own plugins, installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Shared
from tests.plugin.distributions import CHECKOUT

PLUGINS = ("icltool-example", "icltool-ofa", "icltool-openflamingo")


@pytest.fixture(scope="session")
def site(shared: Shared) -> Path:
    """A folder to put on the path, into which pip has installed them all, from copies of their checkouts."""

    def install(folder: Path) -> None:
        sources = [folder / name for name in PLUGINS]
        for source in sources:
            left_out = shutil.ignore_patterns("__pycache__", "dist", "tests", "*.egg-info")
            shutil.copytree(CHECKOUT / "plugins" / source.name, source, ignore=left_out)
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site")]
        done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return shared("plugins", install) / "site"
