"""One small training that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.components.learners.synthetic import RecordingProgress, Trained, make_index, make_training_set

#: Small, and large enough to learn the synthetic task.
SMALL = {"n_embd": 32, "n_head": 4, "batch_size": 32, "lr": 3e-3}


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A selector trained on the synthetic task, on the CPU."""
    from icltool.components.learners.lever_lm.learner import LeverLM
    from icltool.components.learners.lever_lm.options import LeverLMOptions

    folder: Path = tmp_path_factory.mktemp("selector")
    index = make_index(90)
    data = make_training_set(index, shots=2, beams=3)
    progress = RecordingProgress()
    learner = LeverLM(LeverLMOptions(**SMALL, epochs=12, val_fraction=0.2, trainer={"accelerator": "cpu"}))
    outcome = learner.train(data, folder, 3, progress)
    return Trained(index, data, folder, outcome, progress, np.unique(data.query_rows), learner)
