"""What tests of the conformance suites share."""

from __future__ import annotations

import pytest

from icltool.models.idefics import IdeficsModel
from tests.conftest import Shared
from tests.models import tiny


@pytest.fixture(scope="session")
def small_idefics(shared: Shared) -> IdeficsModel:
    """Of two layers and a width of 32."""
    return IdeficsModel("idefics", path=tiny.shared_folder(shared, tiny.idefics), device="cpu")
