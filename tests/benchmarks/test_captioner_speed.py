"""Fine-tuning: images a second, with rewards and images made in other processes and in the training's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from icltool.contracts import Example
from icltool.plugin.manager import component
from tests.components.learners.captioner.model import TinyCaptioner
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set, several_captions
from tests.conftest import Scenery

pytestmark = pytest.mark.benchmark

IMAGES, HELD, EPOCHS, ROUNDS = 36, 4, 2, 2
WAYS: dict[str, dict[str, Any]] = {
    "cross-entropy, images read in the training's process": {"workers": 0},
    "cross-entropy, images read in 1 process": {"workers": 1},
    "rewards computed in the training's process": {"scst": True, "reward_workers": 0},
    "rewards computed in 1 process": {"scst": True, "reward_workers": 1},
}


def test_speed_of_fine_tuning(scenery: Scenery, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints images per second of the last epoch of each way, the best of rounds in turn, and ratios. Equal steps are asserted,
    no time is."""
    examples = several_captions(scenery.mixed(IMAGES + HELD, seed=21))
    speeds, losses = dict.fromkeys(WAYS, 0.0), {}
    for turn in range(ROUNDS):
        for number, (name, options) in enumerate(WAYS.items()):
            record = _run(examples, tmp_path / f"{turn}{number}", options)
            speeds[name], losses[name] = max(speeds[name], record["images_per_second"]), record["train_loss"]
    names = list(WAYS)
    assert losses[names[0]] == losses[names[1]]
    assert losses[names[2]] == losses[names[3]]
    with capsys.disabled():
        print()
        for name, speed in speeds.items():
            print(f"  {name}: {speed:.1f} images/s")
        for here, there in ((names[0], names[1]), (names[2], names[3])):
            print(f"  {there}: {speeds[there] / speeds[here]:.2f} times as fast as in the training's process")


def _run(examples: list[Example], folder: Path, options: dict[str, Any]) -> dict[str, float]:
    """The record of the last epoch; the first one starts processes and fills caches."""
    data = fine_tuning_set(examples, TinyCaptioner(), held=HELD)
    data = type(data)(**{**vars(data), "metric": partial(component, "metrics")})
    outcome = fine_tuned(data, folder, epochs=EPOCHS, select="loss", **options)
    return dict(outcome.history[-1])
