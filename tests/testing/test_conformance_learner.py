"""The Lever-LM learner passes the suite of learners, and the retrieval method that reads its checkpoints its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_learner, check_retriever, make_training_set

OPTIONS = {"epochs": 1, "n_embd": 16, "n_head": 2, "n_layer": 1, "batch_size": 32}


@pytest.mark.parametrize("network", ["gpt2", "lstm"])
def test_lever_lm_conforms(network: str, tmp_path: Path) -> None:
    check_learner(lambda: component("learners", "lever-lm", network=network, **OPTIONS), tmp_path)


def test_the_lever_lm_retriever_conforms(tmp_path: Path) -> None:
    data = make_training_set()
    component("learners", "lever-lm", **OPTIONS).train(data, tmp_path, 0, QuietProgress())
    retriever = component("retrievers", "lever-lm", folder=str(tmp_path), device="cpu")
    check_retriever(retriever, index=data.index)
