"""Which queries are measured, and for which calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icltool.evaluation import costs
from icltool.evaluation.inputs import Inputs
from icltool.evaluation.settings import Settings
from icltool.models.idefics import IdeficsModel
from tests.evaluation.test_interventions import config
from tests.evaluation.vectors import vectors


def test_the_sample_is_fixed_spread_and_without_repetition() -> None:
    found = costs.sample(400)
    assert found.tolist() == sorted(set(found.tolist())) == costs.sample(400).tolist()
    assert len(found) == costs.SAMPLE
    assert found.max() - found.min() > 100
    assert costs.sample(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({}, False), ({"cost": True}, True), ({"live": True}, True), ({"live": True, "cost": False}, False)],
)
def test_costs_are_measured_where_something_stands_in_unless_told_otherwise(
    workspace: Path, tiny_model: IdeficsModel, tmp_path: Path, options: dict[str, Any], wanted: bool
) -> None:
    asked = dict(options)
    if asked.pop("live", False):
        asked["vectors"] = (vectors(tmp_path / "v.safetensors", tiny_model, 0.0),)
    assert costs.wanted(Settings(Inputs(config(workspace, **asked)))) is wanted
