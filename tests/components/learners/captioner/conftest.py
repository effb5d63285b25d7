"""Examples of the embedded world's images, with several captions each."""

from __future__ import annotations

import pytest

from icltool.contracts import Example
from tests.components.learners.captioner.sets import several_captions
from tests.conftest import Scenery


@pytest.fixture(scope="module")
def examples(scenery: Scenery) -> list[Example]:
    return several_captions(scenery.mixed(20, seed=5))


@pytest.fixture(scope="module")
def styled(scenery: Scenery) -> list[Example]:
    return several_captions(scenery.mixed(14, seed=6), style=True)
