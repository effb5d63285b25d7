"""What the runner keeps, and what it reads of states that older releases left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from icltool.components.learners.captioner.fitting import CaptionerTraining
from icltool.components.learners.fitting.runner import Best, CheckpointCallback, _saved_state
from icltool.errors import StoreError

NAN = float("nan")


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, NAN, None])), st.booleans())
def test_the_best_is_the_first_of_the_best_numbers(values: list[float | None], largest: bool) -> None:
    history = [{} if value is None else {"figure": value} for value in values]
    place = Best("figure", largest).place(history)
    known = [value for value in values if value is not None]
    numbers = [value for value in known if value == value]
    if numbers:
        assert place == values.index(max(numbers) if largest else min(numbers))
    elif known:
        assert place is not None
        assert values[place] is not None
    else:
        assert place is None


def left(folder: Path, record: str) -> CaptionerTraining:
    """A training whose folder holds a state as releases before the runner saved it."""
    history = [{"epoch": 1.0, "step": 5.0, "selected": 2.0}, {"epoch": 2.0, "step": 10.0, "selected": 1.0}]
    state = {
        "callbacks": {"Keeper": {"history": history, "best": 2.0, "worse": 1, "pending": None}},
        "captioner": {"epoch": 2, "batch": 0, "sums": {}, "record": record, "world": 2},
        "global_step": 10,
    }
    torch.save(state, folder / "resume.ckpt")
    training = CaptionerTraining.__new__(CaptionerTraining)
    training.folder, training.identity, training.patience = folder, "of this training", 1
    return training


def test_a_state_of_before_the_runner_is_gone_on_from(tmp_path: Path) -> None:
    training = left(tmp_path, "of this training")
    checkpointing = CheckpointCallback(training)
    assert _saved_state(training, checkpointing.state_key) == (2, 10)
    saved: dict[str, Any] = torch.load(training.resume, weights_only=True)["callbacks"][checkpointing.state_key]
    checkpointing.load_state_dict(saved)
    assert [record["epoch"] for record in checkpointing.history] == [1, 2]
    assert checkpointing.pending is None
    assert checkpointing._is_patience_over()


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    training = left(tmp_path, "of another")
    with pytest.raises(StoreError, match="to a training with other options or data"):
        _saved_state(training, "Keeper")
