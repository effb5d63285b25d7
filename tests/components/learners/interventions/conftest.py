"""One InterventionSet of the embedded world's images."""

from __future__ import annotations

from typing import Any

import pytest

from icltool.contracts import Example, InterventionSet
from tests.components.learners.interventions.sets import intervention_set
from tests.conftest import Scenery


@pytest.fixture(scope="module")
def examples(scenery: Scenery) -> list[Example]:
    return scenery.mixed(20, seed=5)


@pytest.fixture(scope="module")
def data(tiny_model: Any, examples: list[Example]) -> InterventionSet:
    return intervention_set(tiny_model, examples)
