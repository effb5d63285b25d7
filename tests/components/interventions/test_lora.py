"""LoRA's adapters against weights that are added up by hand, and what they leave behind: nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from icltool.components.interventions import files
from icltool.components.interventions.lora import TARGETS, LoRA, LowRankAdapters
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.contracts import GenerationOptions, Intervention
from icltool.errors import ConfigError, StoreError
from tests.components.interventions.cases import FAMILIES, Case, ToyModel, case_of, logits_of, modules_of

pytest.importorskip("peft")

RANK, ALPHA = 3, 6.0


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(request.param, request, tmp_path_factory)


def random_adapters(model: Any, targets: tuple[str, ...] = TARGETS, scale: float = 0.3) -> LowRankAdapters:
    adapters, drawn = LowRankAdapters(model, targets, RANK, ALPHA), torch.Generator().manual_seed(1)
    for weight in adapters.weights().values():
        weight.data = scale * torch.randn(weight.shape, generator=drawn)
    return adapters


def adapter_file(model: Any, folder: Path, scale: float = 0.3, **changed: Any) -> Path:
    options = {"rank": RANK, "lora_alpha": ALPHA, "targets": list(TARGETS)} | changed
    weights = random_adapters(model, TARGETS, scale).weights()
    files.save_intervention(folder / "v.safetensors", "lora", model.base_model(), {"options": options}, weights)
    return folder / "v.safetensors"


@contextmanager
def merged(model: Any, weights: dict[str, Tensor]) -> Iterator[None]:
    """The twin: W + (alpha / rank) B A in place of each weight."""
    parts = []
    for name in {key.rpartition(".")[0] for key in weights}:
        layer, target = name.split(".")
        linear = getattr(model.attention_heads()[int(layer)], target)
        parts.append((linear, linear.weight.data))
        linear.weight.data = linear.weight + ALPHA / RANK * weights[f"{name}.B"] @ weights[f"{name}.A"]
    try:
        yield
    finally:
        for linear, weight in parts:
            linear.weight.data = weight


@pytest.mark.parametrize("targets", [("query", "value"), TARGETS])
def test_every_projection_becomes_w_plus_alpha_by_rank_b_a(case: Case, targets: tuple[str, ...]) -> None:
    model, prompts = case
    adapters = random_adapters(model, targets)
    assert len(adapters.weights()) == 2 * len(targets) * len(model.decoder_layers())
    with torch.no_grad():
        plain = logits_of(model, prompts)
        with merged(model, adapters.weights()):
            expected = logits_of(model, prompts)
        with adapters.injected():
            actual = logits_of(model, prompts)
    torch.testing.assert_close(actual, expected, atol=2e-3, rtol=1e-3)
    assert float((plain - expected).abs().max()) > 0.05


def test_a_fused_projection_has_one_pair() -> None:
    model: Any = ToyModel(fused=True)
    adapters, x = random_adapters(model), torch.randn(2, 5, 8)
    weights = adapters.weights()
    assert {key: tuple(w.shape) for key, w in weights.items() if key.startswith("0.")} == {
        "0.query.A": (3, 8), "0.query.B": (24, 3), "0.output.A": (3, 8), "0.output.B": (8, 3),
    }  # fmt: skip
    with merged(model, weights):
        expected = model(x)
    with adapters.injected():
        torch.testing.assert_close(model(x), expected)
    assert set(random_adapters(model, ("value",)).weights()) == {f"{n}.value.{m}" for n in (0, 1) for m in "AB"}


def test_new_adapters_change_nothing(case: Case) -> None:
    model, prompts = case
    with torch.no_grad():
        plain = logits_of(model, prompts)
        with LowRankAdapters(model, TARGETS, RANK, ALPHA).injected():
            assert torch.equal(logits_of(model, prompts), plain)


def test_a_batch_of_n_equals_n_single_runs_and_no_trace_is_left(case: Case, tmp_path: Path) -> None:
    model, prompts = case
    options = GenerationOptions(6, 3)
    before, plain, modules = model.score(prompts, 4), model.generate(prompts, options, 4), modules_of(model)
    intervention = LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path)))
    with intervention.applied(model):
        assert modules_of(model) != modules
        alone = [model.score([p], 1)[0].log_prob for p in prompts]
        assert [s.log_prob for s in model.score(prompts, 4)] == pytest.approx(alone, abs=1e-3)
        answers = [model.generate([p], options, 1)[0] for p in prompts]
        assert model.generate(prompts, options, 4) == answers
    assert max(abs(a - b.log_prob) for a, b in zip(alone, before, strict=True)) > 0.05
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
        LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path))),
        GenerationOptions(6, beams),
    )
    generate = model.model.generate
    with intervention.applied(model):
        cached = model.generate(prompts, options, 4)
        monkeypatch.setattr(model.model, "generate", lambda *a, **kw: generate(*a, **{**kw, "use_cache": False}))
        assert model.generate(prompts, options, 4) == cached


def test_gradients_reach_the_adapters_only_also_when_layers_are_computed_twice(case: Case) -> None:
    model, prompts = case
    actual = []
    for twice in (False, True):
        adapters = random_adapters(model)
        layers = getattr(model, "checkpointed_layers", model.decoder_layers)() if twice else ()
        with checkpointed(layers), adapters.injected():
            logits_of(model, prompts).logsumexp(-1).sum().backward()
        actual.append([weight.grad for weight in adapters.weights().values()])
    for one, other in zip(*actual, strict=True):
        assert float(one.abs().sum()) > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None and not p.requires_grad for layer in model.decoder_layers() for p in layer.parameters())


def test_adapters_of_half_precision_models_are_float32() -> None:
    model: Any = ToyModel().to(torch.bfloat16)
    adapters, x = random_adapters(model), torch.randn(2, 5, 8, dtype=torch.bfloat16)
    assert {w.dtype for w in LowRankAdapters(model, TARGETS, RANK, ALPHA).weights().values()} == {torch.float32}
    with merged(model.float(), adapters.weights()):
        expected = model(x.float())
    model.to(torch.bfloat16)
    with adapters.injected():
        actual = model(x)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=0.1, rtol=0.1)


def test_weights_that_want_gradients_go_on_wanting_them() -> None:
    model: Any = ToyModel()
    model.layers[0].q.requires_grad_(True)
    before = modules_of(model)
    with LowRankAdapters(model, TARGETS, RANK, ALPHA).injected():
        assert model.layers[0].q.base_layer.weight.requires_grad
    assert modules_of(model) == before


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    model: Any = ToyModel()
    intervention, x = LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path))), torch.randn(2, 5, 8)
    assert isinstance(intervention, Intervention)
    assert intervention.everywhere
    assert intervention.parameters == 2 * 3 * (3 * 8 + 8 * 3)
    with random_adapters(model).injected():
        expected = model(x)
    state = torch.get_rng_state()
    with intervention.applied(model), torch.enable_grad():
        actual = model(x)
    assert torch.equal(actual, expected)
    assert not actual.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert intervention.identity() == LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path))).identity()
    assert (
        intervention.identity()
        != LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path, scale=0.2))).identity()
    )


def test_damaged_files_and_other_models_are_one_clear_line(tmp_path: Path) -> None:
    model: Any = ToyModel()
    with pytest.raises(StoreError, match="does not contain rank"):
        LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path, rank=None)))
    with pytest.raises(StoreError, match="not for method live"):
        LoRA(StoredOptions(method="live", file=adapter_file(model, tmp_path)))
    for changed, message in (
        ({"targets": ["query"]}, "'0.output.A' is missing or unexpected"),
        ({"rank": 2}, "'0.query.A' has the shape"),
    ):
        intervention = LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path, **changed)))
        with pytest.raises(StoreError, match=message), intervention.applied(model):
            pass
    with pytest.raises(ConfigError, match=r"trained for toy \(layers: 2\)"):
        LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path))).check(ToyModel(layers=3))  # type: ignore[arg-type]


def test_without_peft_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = ToyModel()
    intervention = LoRA(StoredOptions(method="lora", file=adapter_file(model, tmp_path)))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        intervention.check(model)
    assert "pip install 'icltool[lora]'" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="not installed"), intervention.applied(model):
        pass


def test_projections_that_peft_cannot_wrap_are_one_clear_line() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    model: Any = ToyModel()
    model.layers[1].q = Odd()
    before = modules_of(model)
    with pytest.raises(ConfigError, match="PEFT cannot put adapters"):
        LowRankAdapters(model, TARGETS, RANK, ALPHA)
    assert modules_of(model) == before
    model.layers[1].q = torch.nn.Linear(8, 8)
    named = model.attention_heads()
    model.attention_heads = lambda: named  # of projections that the layer does not have any more
    model.layers[1].q = torch.nn.Linear(8, 8)
    with pytest.raises(ConfigError, match="query projection of decoder layer 1 is not part"):
        LowRankAdapters(model, TARGETS, RANK, ALPHA)


def test_layers_that_are_kept_off_the_gpu_are_one_clear_line() -> None:
    model: Any = ToyModel()
    model.layers[1].to("meta")  # as accelerate has them between passes
    with pytest.raises(ConfigError, match="offloaded to the CPU's memory"):
        LowRankAdapters(model, TARGETS, RANK, ALPHA)
