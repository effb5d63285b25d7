"""The pointer network: its loss written out by hand, and what it can do that the published networks cannot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from icltool.components.learners.lever_lm.building import build_model
from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.model import code_tensor, feature_tensors
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.pointer import PointerModel
from icltool.components.learners.lever_lm.rows import Batch, Vocabulary, build_rows
from icltool.components.learners.lever_lm.selector import LeverLMSelector
from icltool.contracts import IndexSet, TrainingSet
from icltool.contracts.options import options_from
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from tests.components.learners.synthetic import (
    RecordingProgress,
    best_rows,
    kind_of,
    make_index,
    make_queries,
    make_training_set,
)

POINTER = {"network": "pointer", "n_embd": 32, "projection": 16, "batch_size": 32, "lr": 3e-3}
BOTH = frozenset({"image", "text"})


def with_pools(data: TrainingSet, size: int = 12, seed: int = 1) -> TrainingSet:
    """The same sequences with pools that hold their ICDs and others; every third pool is one smaller."""
    rng = np.random.default_rng(seed)
    pools = np.full((len(data.scores), size), -1, dtype=np.int64)
    for row, (query, icds) in enumerate(zip(data.query_rows, data.icd_rows, strict=True)):
        others = np.setdiff1d(np.arange(len(data.index)), [query, *icds])
        held = size - (row % 3 == 0)
        pools[row, :held] = rng.permutation(np.concatenate([icds, rng.permutation(others)[: held - len(icds)]]))
    return dataclasses.replace(data, candidate_rows=pools)


@pytest.fixture(scope="module")
def pointed(tmp_path_factory: pytest.TempPathFactory) -> tuple[IndexSet, Path]:
    """A pointer trained on the synthetic task: index set and checkpoint folder."""
    folder = tmp_path_factory.mktemp("pointer")
    index = make_index(90)
    learner = LeverLM(LeverLMOptions(**POINTER, epochs=12, val_fraction=0.2, trainer={"accelerator": "cpu"}))
    learner.train(with_pools(make_training_set(index)), folder, 3, RecordingProgress())
    return index, folder


def small(**options: object) -> PointerModel:
    torch.manual_seed(0)
    chosen = {"network": "pointer", "n_embd": 16, "n_head": 2, "projection": 8, **options}
    model = build_model(30, 16, options_from("lever-lm", LeverLMOptions, chosen)).double().eval()
    assert isinstance(model, PointerModel)
    return model


def batch_of(data: TrainingSet) -> Batch:
    rows = build_rows(data.query_rows, data.icd_rows, Vocabulary(len(data.index)), False, data.candidate_rows)
    return Batch(rows.tokens, rows.labels, rows.queries, rows.pools)


def by_hand(model: PointerModel, data: TrainingSet, rivals: list[list[int]]) -> float:
    """The loss, one ICD at a time: no padding, no batch, every prefix read anew."""
    table = {m: v.double() for m, v in feature_tensors(data.index, BOTH).items()}

    def feature(layers: torch.nn.ModuleDict, modalities: tuple[str, ...], row: int) -> torch.Tensor:
        return sum(layers[m](4.0 * normalize(table[m][row], dim=0)) for m in modalities)

    total = 0.0
    reads = model.options.reads
    for query, icds, others in zip(data.query_rows.tolist(), data.icd_rows.tolist(), rivals, strict=True):
        icds = [icd for icd in icds if icd >= 0]
        for place, icd in enumerate(icds):
            inputs = [model.query_token + feature(model.query_adapters, reads.query, query)]
            inputs += [feature(model.icd_adapters, reads.icd, before) for before in icds[:place]]
            hidden = model.transformer(inputs_embeds=torch.stack(inputs)[None]).last_hidden_state[0, -1]
            pointing = normalize(model.pointer(hidden), dim=0)
            allowed = [r for r in others if r not in icds[:place]]
            keys = [normalize(feature(model.key_layers, reads.icd, r), dim=0) for r in allowed]
            logits = model.log_scale.exp() * torch.stack([pointing @ key for key in keys])
            total -= float(logits.log_softmax(0)[allowed.index(icd)].detach())
    return total


def test_the_loss_over_pools_equals_the_formula() -> None:
    model = small()
    data = with_pools(make_training_set(make_index(30), shots=3, beams=1, queries=5), size=8)
    data.icd_rows[2, 2] = data.icd_rows[4, 1] = data.icd_rows[4, 2] = -1
    table = {m: v.double() for m, v in feature_tensors(data.index, BOTH).items()}
    total, count = model.batch_loss(batch_of(data), table, code_tensor(data.index))
    assert int(count) == 12
    assert data.candidate_rows is not None
    pools = [[r for r in pool if r >= 0] for pool in data.candidate_rows.tolist()]
    assert float(total.detach()) == pytest.approx(by_hand(model, data, pools), rel=1e-10)


def test_the_loss_over_the_index_equals_the_formula_without_leaking_rows() -> None:
    model = small(contrast="index", negatives=1000)
    index = dataclasses.replace(make_index(30), groups=np.arange(30) // 3, _lookup={})
    rng = np.random.default_rng(0)
    queries = np.array([0, 7, 20])
    icds = np.array([rng.permutation(np.flatnonzero(index.groups != index.groups[q]))[:3] for q in queries])
    data = TrainingSet(index, queries, icds, np.ones(3))
    table = {m: v.double() for m, v in feature_tensors(index, BOTH).items()}
    total, count = model.batch_loss(batch_of(data), table, code_tensor(index))
    allowed = [np.flatnonzero(index.groups != index.groups[q]).tolist() for q in queries]
    assert int(count) == 9
    assert float(total.detach()) == pytest.approx(by_hand(model, data, allowed), rel=1e-10)


def test_drawn_negatives_always_hold_the_sequences() -> None:
    model = small(contrast="index", negatives=3)
    data = make_training_set(make_index(30), shots=3, queries=4)
    table = {m: v.double() for m, v in feature_tensors(data.index, BOTH).items()}
    first, count = model.batch_loss(batch_of(data), table, code_tensor(data.index))
    again, _ = model.batch_loss(batch_of(data), table, code_tensor(data.index))
    assert int(count) == 36
    assert float(first.detach()) == float(again.detach())
    assert torch.isfinite(first)


def test_it_generalises_to_queries_and_to_an_index_set_it_never_saw(pointed: tuple[IndexSet, Path]) -> None:
    _, folder = pointed
    selector = LeverLMSelector.load(folder)
    for examples, seed in ((90, 0), (150, 0), (45, 0)):
        drawn = make_index(examples, seed=seed)
        other = dataclasses.replace(drawn, ids=drawn.ids + 10**6, image_ids=drawn.image_ids + 10**6, _lookup={})
        rows = np.arange(min(40, examples))
        chosen = selector.decode(other, make_queries(other, rows), 2)
        assert chosen.shape == (len(rows), 2)
        by_chance = kind_of(np.random.default_rng(0).integers(0, examples, chosen.shape))
        fitting = float((kind_of(chosen) == kind_of(rows)[:, None]).mean())
        assert fitting > float((by_chance == kind_of(rows)[:, None]).mean()) + 0.4


def test_it_needs_embeddings_of_the_same_width(pointed: tuple[IndexSet, Path]) -> None:
    index, folder = pointed
    assert index.image is not None
    narrow = dataclasses.replace(index, image=index.image[:, :8], _lookup={})
    with pytest.raises(DataError, match="width 16"):
        LeverLMSelector.load(folder).decode(narrow, make_queries(narrow, np.arange(3)), 2)


def test_more_shots_than_positions_are_refused(tmp_path: Path) -> None:
    data = with_pools(make_training_set(make_index(30), queries=8))
    options = {**POINTER, "epochs": 1, "n_positions": 5, "trainer": {"accelerator": "cpu"}}
    LeverLM(LeverLMOptions(**options)).train(data, tmp_path, 0, RecordingProgress())
    selector = LeverLMSelector.load(tmp_path)
    assert selector.decode(data.index, make_queries(data.index, np.arange(4)), 5).shape == (4, 5)
    with pytest.raises(ConfigError, match="positions"):
        selector.decode(data.index, make_queries(data.index, np.arange(4)), 6)


def test_sequences_without_pools_name_the_way_out(tmp_path: Path) -> None:
    data = make_training_set(make_index(30), queries=8)
    with pytest.raises(ConfigError) as caught:
        LeverLM(LeverLMOptions(**POINTER, epochs=1, trainer={"accelerator": "cpu"})).train(
            data, tmp_path, 0, RecordingProgress()
        )
    assert "contrast=index" in str(caught.value.hint)
    LeverLM(LeverLMOptions(**POINTER, epochs=1, contrast="index", trainer={"accelerator": "cpu"})).train(
        data, tmp_path, 0, RecordingProgress()
    )
    assert LeverLMSelector.load(tmp_path).decode(data.index, make_queries(data.index, np.arange(2)), 2).shape == (2, 2)


def test_a_variant_without_icd_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="query_img_icd_idx"):
        component("learners", "lever-lm", network="pointer", variant="query_img_icd_idx")


def test_defaults_are_the_networks_own() -> None:
    options = options_from("lever-lm", LeverLMOptions, {"network": "pointer"})
    assert (options.n_embd, options.n_head, options.norm, options.lr) == (128, 4, True, 1e-3)
    assert options_from("lever-lm", LeverLMOptions, {"network": "pointer", "lr": "1e-4"}).lr == 1e-4
    assert options_from("lever-lm", LeverLMOptions, {}).n_embd == 512


def test_the_synthetic_task_is_what_it_says() -> None:
    """The rows that sequences are made of are of the query's kind: what the tests above measure can be learned."""
    index = make_index(90)
    assert (kind_of(np.stack([best_rows(index, q, 2) for q in range(30)])) == kind_of(np.arange(30))[:, None]).all()


def test_the_learner_pointer_trains_nothing_else() -> None:
    learner = component("learners", "pointer", n_embd=64, projection=32)
    assert (learner.options.network, learner.options.projection) == ("pointer", 32)
    with pytest.raises(ConfigError, match="network must be 'pointer', got 'gpt2'"):
        component("learners", "pointer", network="gpt2")
