from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.options import VARIANTS, LeverLMOptions
from icltool.contracts import Retriever
from icltool.errors import StoreError
from icltool.plugin.manager import component
from tests.components.learners.synthetic import RecordingProgress, make_index, make_queries, make_training_set

TINY = {"n_embd": 16, "n_head": 2, "n_layer": 1, "batch_size": 32, "epochs": 1, "trainer": {"accelerator": "cpu"}}
INDEX = make_index(24)


def train(folder: Path, **options: object) -> Path:
    LeverLM(LeverLMOptions(**TINY, **options)).train(make_training_set(INDEX), folder, 0, RecordingProgress())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("selector"))


@pytest.mark.parametrize("network", ["gpt2", "lstm"])
def test_it_keeps_the_contract(network: str, tmp_path: Path) -> None:
    retriever = component("retrievers", "lever-lm", folder=str(train(tmp_path, network=network)))
    assert isinstance(retriever, Retriever)
    assert (retriever.ranked, retriever.nested, retriever.learner) == (False, True, "lever-lm")
    assert retriever.encoder == "none-at-all"
    queries = make_queries(INDEX, np.arange(24))
    answer = retriever.retrieve(INDEX, queries, 4, seed=0)
    assert answer.shape == (24, 4)
    assert np.array_equal(retriever.retrieve(INDEX, queries, 2, seed=9), answer[:, :2])
    for position, rows in enumerate(answer):
        assert len(set(rows)) == 4
        assert position not in rows


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_needs_are_those_of_the_checkpoint_and_suffice(variant: str, tmp_path: Path) -> None:
    retriever = component("retrievers", "lever-lm", folder=train(tmp_path, variant=variant))
    assert retriever.needs == VARIANTS[variant].needs
    arrays = {name: getattr(INDEX, name) for name in retriever.needs}
    index = type(INDEX)(INDEX.ids, INDEX.image_ids, INDEX.groups, **arrays)
    full = make_queries(INDEX, np.arange(6))
    queries = type(full)(
        full.ids,
        full.image_ids,
        full.groups,
        **{name: getattr(full, name) for name in retriever.needs},
        same_split=True,
    )
    assert retriever.retrieve(index, queries, 3, seed=0).shape == (6, 3)


def test_generating_outwards_is_not_nested(tmp_path: Path) -> None:
    retriever = component("retrievers", "lever-lm", folder=train(tmp_path, reverse_seq=True))
    assert not retriever.nested
    queries = make_queries(INDEX, np.arange(24))
    more, fewer = retriever.retrieve(INDEX, queries, 4, 0), retriever.retrieve(INDEX, queries, 2, 0)
    assert np.array_equal(more[:, 2:], fewer)


def test_checkpoints_are_chosen_by_name(folder: Path) -> None:
    for checkpoint in ("last", "min_vl", "min_tl"):
        retriever = component("retrievers", "lever-lm", folder=folder, checkpoint=checkpoint, batch_size=5)
        assert retriever.retrieve(INDEX, make_queries(INDEX, np.arange(7)), 2, 0).shape == (7, 2)
    with pytest.raises(StoreError, match="checkpoints in its folder: last, min_tl, min_vl"):
        component("retrievers", "lever-lm", folder=folder, checkpoint="best").retrieve(
            INDEX, make_queries(INDEX, np.arange(1)), 1, 0
        )


def test_a_folder_without_selector_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a Lever-LM checkpoint"):
        component("retrievers", "lever-lm", folder=tmp_path)
