"""Examples and loaded tiny models for the tests of adapters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from icltool.contracts import Example
from icltool.testing import make_examples
from tests.components.models import tiny
from tests.conftest import Shared

SIZES = ((32, 32), (64, 32), (30, 52), (48, 48))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Example]]:
    """Ten examples of a task whose images have four sizes."""
    cache: dict[str, list[Example]] = {}

    def examples(task: str) -> list[Example]:
        if task not in cache:
            cache[task] = make_examples(tmp_path_factory.mktemp(task), 10, task=task)
            for i, example in enumerate(cache[task]):
                Image.open(example.image).resize(SIZES[i % len(SIZES)]).save(example.image)
        return cache[task]

    return examples


@pytest.fixture(scope="session")
def folder_of(shared: Shared) -> Callable[[Callable[[Path], str]], str]:
    """The folder of a tiny model, built once for all workers: `folder_of(tiny.gpt2)`. Copy it to change it."""
    return partial(tiny.shared_folder, shared)
