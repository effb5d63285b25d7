from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from icltool_example.mean_shift import MeanShift, MeanShiftOptions, MeanShiftVectors

from icltool import ConfigError, InterventionSet, Model, StoreError, save_intervention
from icltool.contracts.options import options_from
from icltool.plugin.manager import component
from icltool.testing import (
    QuietProgress,
    check_intervention,
    check_intervention_learner,
    make_examples,
    make_intervention_set,
)


@pytest.fixture(scope="module")
def model() -> Any:
    """icltool's own small LVLM, which comes with it."""
    return component("models", "tiny-idefics", device="cpu")


@pytest.fixture(scope="module")
def data(model: Model, tmp_path_factory: pytest.TempPathFactory) -> InterventionSet:
    words = ("red", "green", "blue", "yellow", "circle", "square", "star")
    return make_intervention_set(model, make_examples(tmp_path_factory.mktemp("images"), 16, words=words))


def test_they_conform(model: Model, data: InterventionSet, tmp_path: Path) -> None:
    result = check_intervention_learner(
        lambda: MeanShift(MeanShiftOptions(shots=2, examples=8)), MeanShiftVectors, data, tmp_path
    )
    check_intervention(result, model, data.examples.rows(range(4)))


def test_the_shift_is_the_mean_difference(model: Any, data: InterventionSet, tmp_path: Path) -> None:
    """Of one example it is the difference itself."""
    import torch

    from icltool import Draws, last_states, read_intervention

    MeanShift(MeanShiftOptions(shots=2, examples=1, strength=1.0)).learn_intervention(
        data, tmp_path, 5, QuietProgress()
    )
    shifts = read_intervention(tmp_path / "last.safetensors").tensor("shifts", -1, -1)
    pool = Draws(data, len(data.examples), 5)
    for place, module in enumerate(model.shifted_modules()):
        with_demonstrations, plain = (
            last_states(data, p, [module])[0] for p in (pool.prompts([0], 2), pool.plain_prompts([0]))
        )
        assert torch.equal(shifts[place], (with_demonstrations.double() - plain.double()).float()[0])


def test_wrong_options_and_files_are_one_clear_error(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shots must be a positive integer, got 0"):
        options_from("mean-shift", MeanShiftOptions, {"shots": 0})
    import torch

    path = tmp_path / "last.safetensors"
    save_intervention(path, "mean-shift", model.base_model(), {}, {"shifts": torch.zeros(2, 3)})
    with pytest.raises(StoreError, match="'shifts' has the shape"):
        MeanShiftVectors(path)
