"""The scoring engine against the naive way: the same scores and beams from fewer tokens, each image encoded once.

python -m pytest tests/benchmarks/test_engine_speed.py -s            (a tiny model, and one of 60 M parameters)
python -m tests.benchmarks.engine --help                             (other sizes, on a GPU too)
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.engine.query_cost import counted_flops
from tests.benchmarks.engine import measure, models
from tests.benchmarks.engine.compare import Comparison, Differences, as_json, compare, differences
from tests.benchmarks.engine.data import USES, Run, caption, index_size, lexicon, make_run
from tests.benchmarks.engine.flops import model_flops
from tests.benchmarks.engine.naive import NaiveScorer
from tests.benchmarks.engine.report import show
from tests.benchmarks.engine.sides import Setting, Side
from tests.benchmarks.engine.tree import PromptUnits, TreeSize, forest_size, tree_size

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> IdeficsModel:
    return models.adapter("tiny", tmp_path_factory.mktemp("tiny"), CPU, "float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("images"), anchors=2, candidates=8)


def check(comparison: Comparison, anchors: int) -> None:
    """What must hold on every machine; no time is looked at."""
    s, candidates = comparison.setting, comparison.naive.prompts // anchors
    assert comparison.differences.compared == comparison.naive.prompts
    assert comparison.engine.prompts == candidates * len(comparison.engine.values)
    assert comparison.differences.value < 1e-5
    assert comparison.differences.score < 1e-5
    assert comparison.differences.relative < 1e-4, (
        "values of random models are small, so they must agree relatively too"
    )
    assert comparison.differences.same_beams
    assert all(len(set(beams)) == s.beams for beams in comparison.naive.beams.values())
    assert comparison.engine.encoded == comparison.images
    assert comparison.engine.counters["scored"] == comparison.scored
    assert comparison.bound_joint <= comparison.engine.counters["computed"] <= 1.1 * comparison.bound
    assert comparison.bound_joint <= comparison.bound < comparison.scored


@pytest.mark.parametrize("order", ["left", "right"])
def test_a_tiny_model(
    adapter: IdeficsModel,
    run: Run,
    order: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(measure, "RATE_SECONDS", 0.1)
    comparison = compare(adapter, run, Setting(order, 2, 3, 16), naive_anchors=2)
    check(comparison, anchors=2)
    assert comparison.naive.prompts == 2 * (1 + 8 + 3 * 7)
    assert comparison.naive.encoded == 2 * (1 + 8 * 2 + 3 * 7 * 3)
    assert comparison.cached is not None
    for anchor, values in comparison.naive.values.items():
        cached = comparison.cached.values[anchor]
        assert [cached[ids] for ids in values] == pytest.approx(list(values.values()), rel=1e-4)
    show(comparison, adapter)
    assert "each once: met" in capsys.readouterr().out
    line = json.loads(json.dumps(as_json(comparison, adapter)))
    assert line["tokens"]["bound"] == comparison.bound
    assert line["sides"]["naive"]["prompts"] == comparison.naive.prompts


@pytest.mark.benchmark
def test_a_model_of_60_million_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer candidates than a real run has, so that the naive way takes a minute only: this prints figures."""
    run = make_run(tmp_path / "images", anchors=1, candidates=20)
    adapter = models.adapter("60m", tmp_path / "model", CPU, "float32")
    comparison = compare(adapter, run, Setting("left", 2, 5, 64), naive_anchors=1)
    with capsys.disabled():
        print()
        show(comparison, adapter)
    check(comparison, anchors=1)


def test_values_tell_candidates_and_images_apart(adapter: IdeficsModel, run: Run) -> None:
    """Else a wrong prompt would go unnoticed. The tolerance for ties is 1e-6."""
    query, pool = run.anchors[0]
    prompts = [adapter.prompt("caption", [e], query) for e in pool]
    swapped = [replace(p, images=p.images[::-1]) for p in prompts]
    values, others = (NaiveScorer(adapter, 8).values(p) for p in (prompts, swapped))
    assert 1e-3 < min(values) < max(values) < 0.5
    assert max(values) - min(values) > 1e-4
    assert all(abs(a - b) / a > 1e-3 for a, b in zip(values, others, strict=True))


def test_differences_show() -> None:
    values = {(): 0.1, (3,): 0.2, (3, 5): 0.25}
    naive = Side(1.0, 1.0, 0, {7: values}, {7: [(3, 5)]}, 0)
    other = Side(1.0, 1.0, 0, {7: {**values, (3,): 0.21, (4,): 0.5}}, {7: [(3, 6)]}, 0)
    result = differences(naive, other, "left")
    assert (result.compared, result.same_beams) == (3, False)
    assert (result.value, result.relative) == (pytest.approx(0.01), pytest.approx(0.05))
    assert result.score == pytest.approx(0.01)
    assert differences(naive, naive, "left") == Differences(3, 0.0, 0.0, 0.0, True)


def test_a_model_made_in_memory_is_the_one_that_is_loaded(adapter: IdeficsModel, run: Run, tmp_path: Path) -> None:
    """idefics-9b is made in memory: the same code at a size that fits."""
    built = models.adapter("tiny", tmp_path / "made", CPU, "float32", in_memory=True)
    assert not list((tmp_path / "made").glob("*.safetensors"))
    query, pool = run.anchors[0]
    prompts = [built.prompt("caption", pool[:2], query)]
    assert built.score(prompts, 1)[0].log_prob == adapter.score(prompts, 1)[0].log_prob
    half = models.adapter("tiny", tmp_path / "half", CPU, "bfloat16", in_memory=True)
    assert half.dtype == torch.bfloat16
    assert half.score(prompts, 1)[0].mean == pytest.approx(adapter.score(prompts, 1)[0].mean, rel=0.1)


def test_idefics_9b_has_its_dimensions() -> None:
    """On the meta device, without memory: 9 thousand million parameters, the language model a 7 B LLaMA."""
    words = models.tokenizer(32000)
    with torch.device("meta"):
        shape = models.configuration("idefics-9b")
        model = models.IdeficsForVisionText2Text(shape)
    assert 8.5e9 < models.parameters(model) < 9.5e9
    assert models.parameters(model.model.layers) == 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    assert len(model.model.gated_cross_attn_layers) == 8
    assert len(words) == 32002


def test_operations_are_those_that_torch_counts(adapter: IdeficsModel, run: Run) -> None:
    """One whole prompt with one image: torch counts what the mask hides, too."""
    prompt = adapter.prompt("caption", [], run.anchors[0][0])
    with counted_flops() as counter:
        NaiveScorer(adapter, 1).values([prompt])
    [tokens] = adapter.token_counts([prompt])
    all_pairs = TreeSize(0, 0, 0, 0, scored=tokens, scored_depths=tokens**2, scored_seeing=tokens)
    assert model_flops(adapter.model).naive(all_pairs, images=1) == counter.get_total_flops()


def test_the_size_of_a_tree() -> None:
    """<s> a b | c d and <s> a e | c d, an image in the third place: what stands before the last token is needed."""
    first = PromptUnits((1, 2, (9, "x.jpg"), 4, 5), target_start=3)
    second = PromptUnits((1, 2, (9, "y.jpg"), 4, 5), target_start=3)
    size = tree_size([first, second])
    # nodes: 1, 2, then x and 4, y and 4
    assert size == TreeSize(6, 1 + 2 + 2 * (3 + 4), 4, 4, 10, 2 * 15, 6)
    assert tree_size([first, first]).tokens == 4
    assert forest_size([[first], [second]]).tokens == 8


def test_data_have_cocos_proportions(run: Run) -> None:
    assert index_size(5000, 64) == 118_287
    assert index_size(4, 64) == round(4 * 64 / USES)
    words, rng = lexicon(), np.random.default_rng(0)
    lengths = [len(caption(words, rng).split()) for _ in range(2000)]
    assert np.mean(lengths) == pytest.approx(10.5, abs=0.2)
    assert np.std(lengths) == pytest.approx(2.5, abs=0.2)
    for query, pool in run.anchors:
        assert len({e.id for e in pool} | {query.id}) == len(pool) + 1
