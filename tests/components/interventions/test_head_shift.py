"""Shifted heads against loops over heads and tokens, and against attention over demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from icltool.components.interventions import files
from icltool.components.interventions.head_shift import HeadShift, HeadShifts, head_shape, shifting_heads
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.contracts import GenerationOptions, Intervention
from icltool.errors import ConfigError, StoreError
from tests.components.interventions.cases import FAMILIES, Case, ToyModel, case_of, logits_of, modules_of


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(request.param, request, tmp_path_factory)


def random_shifts(model: Any, scale: float = 2.0) -> HeadShifts:
    shape, drawn = head_shape(model, "mimic"), torch.Generator().manual_seed(1)
    vectors, weights = (size * torch.randn(shape, generator=drawn) for size in (scale, 0.5))
    return HeadShifts(vectors, weights, torch.randn(shape[:2], generator=drawn))


def shift_file(model: Any, folder: Path, scale: float = 2.0, **changed: Tensor) -> Path:
    shifts = random_shifts(model, scale)
    tensors = {"vectors": shifts.vectors, "weights": shifts.weights, "biases": shifts.biases} | changed
    files.save_intervention(folder / "v.safetensors", "mimic", model.base_model(), {"shots": 2}, tensors)
    return folder / "v.safetensors"


@contextmanager
def by_hand(model: Any, shifts: HeadShifts) -> Iterator[None]:
    """The twin: head by head, row by row, token by token."""
    seen: dict[int, Tensor] = {}

    def keep(place: int, queries: Tensor) -> None:
        seen[place] = queries

    def moved(place: int, heads: Any, states: Tensor) -> Tensor:
        changed, wide = states.clone(), heads.head_width
        for row in range(states.shape[0]):
            for token in range(states.shape[1]):
                for head in range(heads.heads):
                    columns = slice(head * wide, (head + 1) * wide)
                    dot = float(seen[place][row, token, columns].float() @ shifts.weights[place, head])
                    mu = 1 / (1 + float(torch.exp(-(dot + shifts.biases[place, head]))))
                    changed[row, token, columns] += mu * shifts.vectors[place, head]
        return changed

    with ExitStack() as stack:
        for place, heads in enumerate(model.attention_heads()):
            first = heads.query.register_forward_hook(lambda m, i, out, p=place: keep(p, out))
            second = heads.output.register_forward_pre_hook(lambda m, i, p=place, h=heads: (moved(p, h, i[0]),))
            stack.callback(first.remove)
            stack.callback(second.remove)
        yield


def test_every_head_is_shifted_by_as_much_as_its_query_asks_for(case: Case) -> None:
    model, prompts = case
    shifts = random_shifts(model)
    with torch.no_grad():
        plain = logits_of(model, prompts[:2])
        with by_hand(model, shifts):
            expected = logits_of(model, prompts[:2])
        with shifting_heads(model, lambda: shifts):
            actual = logits_of(model, prompts[:2])
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)
    assert float((plain - expected).abs().max()) > 0.05


def test_it_can_stand_for_keys_and_values_of_demonstrations() -> None:
    """One query: (1 - mu) SA(q, K) + mu SA(q, K_D) with mu = Z_1 / (Z_1 + Z_2), by hand from the definition."""
    torch.manual_seed(0)
    model = ToyModel(layers=1, width=6, heads=1)
    layer: Any = model.layers[0]
    demonstrations, own = torch.randn(5, 6), torch.randn(1, 6)

    def attended(query: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        weights = (layer.k(states) @ query / 6**0.5).exp()
        return weights @ layer.v(states) / weights.sum(), weights.sum()

    query = layer.q(own)[0]
    whole, _ = attended(query, torch.cat([demonstrations, own]))
    (before, z1), (alone, z2) = attended(query, demonstrations), attended(query, own)
    bias = (z1.log() - z2.log())[None, None]
    shifts = HeadShifts((before - alone)[None, None], torch.zeros(1, 1, 6), bias)
    with shifting_heads(model, lambda: shifts):  # type: ignore[arg-type]
        actual = layer(own[None])[0, 0]
    torch.testing.assert_close(actual, layer.o(whole))


@pytest.mark.parametrize("fused", [False, True])
def test_a_fused_projection_gives_the_queries_first(fused: bool) -> None:
    model: Any = ToyModel(fused=fused)
    shifts, x = random_shifts(model), torch.randn(2, 5, 8)
    with by_hand(model, shifts):
        expected = model(x)
    with shifting_heads(model, lambda: shifts):
        torch.testing.assert_close(model(x), expected)


def test_vectors_of_zero_change_nothing(case: Case) -> None:
    model, prompts = case
    with torch.no_grad():
        plain = logits_of(model, prompts)
        shifts = random_shifts(model, 0.0)
        with shifting_heads(model, lambda: shifts):
            assert torch.equal(logits_of(model, prompts), plain)


def test_a_batch_of_n_equals_n_single_runs_and_everything_is_as_before_afterwards(case: Case, tmp_path: Path) -> None:
    model, prompts = case
    before, modules = model.score(prompts, 4), modules_of(model)
    intervention = HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path)))
    options = GenerationOptions(6, 3)
    plain = model.generate(prompts, options, 4)
    with intervention.applied(model):
        alone = [model.score([p], 1)[0].log_prob for p in prompts]
        assert [s.log_prob for s in model.score(prompts, 4)] == pytest.approx(alone, abs=1e-3)
        answers = [model.generate([p], options, 1)[0] for p in prompts]
        assert model.generate(prompts, options, 4) == answers
    assert max(abs(a - b.log_prob) for a, b in zip(alone, before, strict=True)) > 0.1
    assert model.score(prompts, 4) == before
    assert model.generate(prompts, options, 4) == plain
    with pytest.raises(RuntimeError, match="stop"), intervention.applied(model):
        raise RuntimeError("stop")
    assert modules_of(model) == modules
    assert model.score(prompts, 4) == before


@pytest.mark.parametrize("beams", [1, 3])
def test_generating_with_a_cache_equals_generating_without(
    case: Case, beams: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = case
    intervention, options = (
        HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path))),
        GenerationOptions(6, beams),
    )
    generate, lengths = model.model.generate, []
    seen = model.attention_heads()[0].query.register_forward_hook(lambda m, i, out: lengths.append(out.shape[1]))
    with seen, intervention.applied(model):
        cached = model.generate(prompts, options, 4)
        assert lengths[-1] == 1
        monkeypatch.setattr(model.model, "generate", lambda *a, **kw: generate(*a, **{**kw, "use_cache": False}))
        assert model.generate(prompts, options, 4) == cached
        assert lengths[-1] > 1


def test_gradients_are_the_same_when_layers_are_computed_twice(case: Case) -> None:
    model, prompts = case
    actual = []
    for twice in (False, True):
        shifts = random_shifts(model)
        parts = [p.clone().requires_grad_() for p in (shifts.vectors, shifts.weights, shifts.biases)]
        layers = getattr(model, "checkpointed_layers", model.decoder_layers)() if twice else ()
        with checkpointed(layers), shifting_heads(model, lambda parts=parts: HeadShifts(*parts)):
            logits_of(model, prompts).logsumexp(-1).sum().backward()
        actual.append([p.grad for p in parts])
    for one, other in zip(*actual, strict=True):
        assert float(one.abs().sum()) > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None for layer in model.decoder_layers() for p in layer.parameters())


def test_a_pass_that_broke_off_leaves_nothing_for_the_next() -> None:
    model: Any = ToyModel()
    shifts, x = random_shifts(model), torch.randn(2, 5, 8)
    with shifting_heads(model, lambda: shifts):
        expected = model(x)
    with shifting_heads(model, lambda: shifts):
        model.layers[1].q(x.flip(0))  # queries whose results never came
        assert torch.equal(model(x), expected)


def test_half_precision_stays_what_it_is() -> None:
    model: Any = ToyModel().to(torch.bfloat16)
    shifts, x = random_shifts(model), torch.randn(2, 5, 8, dtype=torch.bfloat16)
    with by_hand(model, shifts):
        expected = model(x)
    with shifting_heads(model, lambda: shifts):
        actual = model(x)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0.05)


def test_queries_that_are_made_elsewhere_are_one_clear_line() -> None:
    model: Any = ToyModel()
    shifts = random_shifts(model)
    with shifting_heads(model, lambda: shifts), pytest.raises(ConfigError, match="one query per result"):
        model.layers[0].o(torch.randn(2, 5, 8))


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    model: Any = ToyModel()
    intervention = HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path)))
    shifts, x = random_shifts(model), torch.randn(2, 5, 8)
    assert isinstance(intervention, Intervention)
    assert intervention.everywhere
    assert intervention.parameters == 2 * 2 * (4 + 4 + 1)
    assert intervention.about == {"shots": 2}
    with shifting_heads(model, lambda: shifts):
        expected = model(x)
    with intervention.applied(model):
        assert torch.equal(model(x), expected)
    digest = intervention.identity()
    assert digest == HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path))).identity()
    assert digest != HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path, 1.0))).identity()


def test_damaged_files_and_other_models_are_one_clear_line(tmp_path: Path) -> None:
    model: Any = ToyModel()
    with pytest.raises(StoreError, match="'weights' has the shape"):
        HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path, weights=torch.zeros(2, 2, 3))))
    with pytest.raises(StoreError, match="not for method live"):
        HeadShift(StoredOptions(method="live", file=shift_file(model, tmp_path)))
    wide = {"vectors": torch.zeros(2, 4, 2), "weights": torch.zeros(2, 4, 2), "biases": torch.zeros(2, 4)}
    with pytest.raises(StoreError, match="4 heads of width 2 in 2 layers"):
        HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path, **wide))).check(model)
    intervention = HeadShift(StoredOptions(method="mimic", file=shift_file(model, tmp_path)))
    with pytest.raises(ConfigError, match=r"trained for toy \(layers: 2\)"):
        intervention.check(ToyModel(layers=3))  # type: ignore[arg-type]
    other: Any = ToyModel()
    other.layers[1].heads = 4
    with pytest.raises(ConfigError, match="differ in the number or width"):
        head_shape(other, "mimic")
