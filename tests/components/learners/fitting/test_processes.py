"""What processes of a training that have nothing of a batch give instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from icltool.components.learners.fitting.processes import without_share
from tests.commands.train.forked import FORKED, both_ranks
from tests.components.learners import overflowing
from tests.components.learners.captioner.sets import several_captions
from tests.conftest import Scenery


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


def test_without_a_share_gradients_are_0_for_what_the_loss_depends_on_alone() -> None:
    used, again, unused = parameter(1.0, torch.inf), parameter(2.0), parameter(3.0)
    hidden = torch.utils.checkpoint.checkpoint(lambda: used * again, use_reentrant=False)
    loss = without_share((hidden.sum() + again.sum()) * torch.nan, [used, again, unused])
    loss.backward()
    assert loss.item() == 0
    assert used.grad is not None
    assert used.grad.tolist() == [0, 0]
    assert again.grad is not None
    assert again.grad.tolist() == [0]
    assert unused.grad is None


def test_a_loss_that_depends_on_nothing_gives_gradients_of_0_for_all() -> None:
    trained = parameter(1.0, 2.0)
    without_share(torch.tensor(torch.inf), [trained]).backward()
    assert trained.grad is not None
    assert trained.grad.tolist() == [0, 0]


@FORKED
@pytest.mark.reliability
@pytest.mark.parametrize("learner", ["live", "captioner"])
def test_a_loss_that_overflows_where_it_does_not_count_changes_nothing(
    scenery: Scenery, tmp_path: Path, learner: str
) -> None:
    examples = several_captions(scenery.mixed(20, seed=5))
    assert both_ranks(overflowing.train, learner, examples, tmp_path) == [0, 0]
    plain, overflowed = (load_file(tmp_path / name / "last.safetensors") for name in ("plain", "overflowing"))
    for name, weights in plain.items():
        assert torch.equal(overflowed[name], weights), name
