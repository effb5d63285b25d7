"""Fixtures: open_flamingo where it is not installed, and tiny models of each kind."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_flamingo import Tiny

WANTED = {"open_flamingo": "open_flamingo==2.0.1", "einops": "einops", "einops_exts": "einops-exts"}


@pytest.fixture(scope="session")
def open_flamingo(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The package open_flamingo, installed into a temporary folder as README.md says where it is missing."""
    missing = [expected for module, expected in WANTED.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return
    folder = tmp_path_factory.mktemp("packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *missing]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{', '.join(missing)} are not installed, and pip cannot get them: {done.stderr.strip()[-200:]}")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


@pytest.fixture(scope="session", params=["mosaic", "mpt", "llama"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, open_flamingo: None) -> Tiny:
    """A tiny model on MPT with normalised queries (as the 3B), on MPT (9B) and on LLaMA (first generation)."""
    from tiny_flamingo import build

    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tiny_mpt(tmp_path_factory: pytest.TempPathFactory, open_flamingo: None) -> Tiny:
    """A tiny model on MPT alone, for what does not depend on the language model."""
    from tiny_flamingo import build

    return build("mpt", tmp_path_factory.mktemp("tiny-mpt"))


@pytest.fixture
def checkpoint_folder(tiny_mpt: Tiny, tmp_path: Path) -> Path:
    """The tiny MPT model's folder, to spoil: parts are links, the checkpoint is not there."""
    for part in ("language_model", "clip"):
        (tmp_path / part).symlink_to(tiny_mpt.folder / part)
    return tmp_path
