"""Folders for the store's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory where there is one: tests that sync hundreds of times would mostly wait for the disk.

    Hypothesis' examples share it.
    """
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="icltool-test-", dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)
