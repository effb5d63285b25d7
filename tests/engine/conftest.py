"""What tests of the engine share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from icltool.models.idefics import IdeficsModel
from tests.conftest import Shared
from tests.models import tiny


@pytest.fixture(scope="package", autouse=True)
def few_objects_to_look_through() -> Iterator[None]:
    """Where memory runs out the engine calls the garbage collector, which looks through all that has been imported: a third of
    a second each time. What is there before the first test is left out."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def small_idefics(shared: Shared) -> IdeficsModel:
    """Of two layers and a width of 32."""
    return IdeficsModel("idefics", path=tiny.shared_folder(shared, tiny.idefics), device="cpu")
