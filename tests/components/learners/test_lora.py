"""LoRA on the embedded world's model: what is minimised, what is trained, what training leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icltool.components.interventions.files import read_intervention
from icltool.components.interventions.lora import LoRA
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.lora.adapters import LearnedAdapters, LoraModule
from icltool.components.learners.lora.learner import Lora
from icltool.components.learners.lora.options import LoRAOptions
from icltool.contracts import Example, InterventionLearner, InterventionSet
from icltool.errors import ConfigError
from icltool.plugin.manager import component
from tests.components.interventions.cases import modules_of
from tests.components.learners.captioner.runs import Ending
from tests.components.learners.interventions.sets import intervention_set
from tests.components.learners.synthetic import RecordingProgress
from tests.conftest import Scenery

pytest.importorskip("peft")

SMALL: dict[str, Any] = {"shots": 2, "epochs": 2, "batch_size": 4, "accumulate": 1, "lr": 2e-3, "rank": 2}


@pytest.fixture(scope="module")
def examples(scenery: Scenery) -> list[Example]:
    return scenery.mixed(16, seed=7)


@pytest.fixture(scope="module")
def data(tiny_model: Any, examples: list[Example]) -> InterventionSet:
    return intervention_set(tiny_model, examples)


def module_of(data: InterventionSet, **options: Any) -> LoraModule:
    chosen = LoRAOptions(**{**SMALL, **options})
    torch.manual_seed(0)
    model: Any = data.model
    module = LoraModule(LearnedAdapters(model, chosen), data, Draws(data, 12, 0), chosen, 0)
    for weight in module.student.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return module


def test_it_is_a_learner_that_steers() -> None:
    assert isinstance(Lora(LoRAOptions()), InterventionLearner)
    resolved = component("learners", "lora", targets="query,output,query").identity()
    assert resolved["targets"] == ["query", "output"]
    expected = {"rank": 8, "lora_alpha": 16.0, "dropout": 0.0, "distil": False, "hard_loss_weight": 1.0, "lr": 1e-4}
    assert {key: resolved[key] for key in expected} == expected
    assert json.loads(json.dumps(resolved)) == resolved


def test_cross_entropy_without_demonstrations_is_minimised(data: InterventionSet, tiny_model: Any) -> None:
    """The twin: the model's own scores of single prompts."""
    module = module_of(data)
    with module.student.applied():
        scores = [tiny_model.score([p], 1)[0] for p in module.draws.plain_prompts([0, 3, 7])]
    losses = module.losses([0, 3, 7])
    expected = -sum(s.log_prob for s in scores) / sum(s.tokens for s in scores)
    assert set(losses) == {"cross_entropy"}
    assert float(module.total(losses).detach()) == pytest.approx(expected, rel=1e-4)
    assert module.teacher.read == 0


@pytest.mark.parametrize("distil", [False, True])
def test_gradients_reach_the_adapters_only(data: InterventionSet, distil: bool) -> None:
    model: Any = data.model
    actual = []
    for twice in (False, True):
        module = module_of(data, distil=distil, grad_checkpointing=twice)
        with checkpointed(model.checkpointed_layers() if twice else ()):
            module.backward(module.total(module.losses([0, 1, 2])))
        assert module.teacher.read == (3 if distil else 0)
        actual.append([p.grad for p in module.parameters()])
    assert len(actual[0]) == 4 * 2 * 2
    for one, other in zip(*actual, strict=True):
        assert one is not None
        assert float(one.abs().sum()) > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in model.model.parameters())


def test_dropout_is_for_training_alone(data: InterventionSet) -> None:
    module = module_of(data, dropout=0.5)
    model: Any = data.model
    actual = []
    for training in (True, True, False, False):
        module.train(training)
        actual.append(float(module.losses([0])["cross_entropy"].detach()))
    assert actual[0] != actual[1]
    assert actual[2] == actual[3]
    assert not any(part.training for layer in model.decoder_layers() for part in layer.modules())


def test_adapters_stay_where_their_layers_are_and_in_float32(data: InterventionSet) -> None:
    module = module_of(data)
    module.to(torch.device("meta")).half()
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("cpu", torch.float32)}


def trained(data: InterventionSet, folder: Path, progress: Any = None, **options: Any) -> Any:
    learner = Lora(LoRAOptions(**{**SMALL, "max_train_size": 12, **options}))
    return learner.learn_intervention(data, folder, 3, progress or RecordingProgress())


def test_training_lowers_the_loss_and_leaves_a_file_that_is_used(
    data: InterventionSet, tiny_model: Any, tmp_path: Path
) -> None:
    progress, modules = RecordingProgress(), modules_of(tiny_model)
    prompts = Draws(data, 12, 3).plain_prompts(range(12))
    before = tiny_model.score(prompts, 4)
    outcome = trained(data, tmp_path, progress, epochs=5)
    assert tiny_model.score(prompts, 4) == before
    assert modules_of(tiny_model) == modules
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]
    numbers = 4 * 2 * 2 * (128 + 128)
    assert outcome.history[-1]["parameters"] == numbers
    assert progress.said == [f"lora: {numbers} parameters of rank 2 in 4 layers"]
    stored = read_intervention(tmp_path / "last.safetensors")
    assert len(stored.tensors) == 4 * 2 * 2
    assert stored.about["figures"]["parameters"] == stored.numbers == numbers
    assert stored.about["shots"] == 0  # none was read
    with LoRA(StoredOptions(method="lora", file=tmp_path / "last.safetensors")).applied(tiny_model):
        after = tiny_model.score(prompts, 4)
    mean = -sum(s.log_prob for s in after) / sum(s.tokens for s in after)
    assert sum(s.mean for s in after) > sum(s.mean for s in before)
    assert mean < outcome.history[-2]["cross_entropy"]
    assert f"| parameters | {numbers} |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("options", [{"dropout": 0.3}, {"distil": True, "teacher_draws": 2}])
def test_an_interrupted_training_goes_on_and_gives_the_same_file(
    data: InterventionSet, tiny_model: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    modules = modules_of(tiny_model)
    whole_run = trained(data, tmp_path / "whole", epochs=3, **options)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "cut", Ending(5), epochs=3, **options)
    assert modules_of(tiny_model) == modules
    assert read_intervention(tmp_path / "cut" / "last.safetensors").about["figures"]["epoch"] == 1
    outcome = trained(data, tmp_path / "cut", epochs=3, **options)
    one, other = (load_file(o.checkpoints["last"]) for o in (whole_run, outcome))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert outcome.history == whole_run.history


def test_bad_options_and_a_missing_peft_are_one_clear_line(
    data: InterventionSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="'lora': targets"):
        component("learners", "lora", targets="keys")
    with pytest.raises(ConfigError, match="'lora': targets"):
        component("learners", "lora", targets="")
    with pytest.raises(ConfigError, match="nothing to minimise without distil=true"):
        component("learners", "lora", hard_loss_weight=0)
    assert Lora(LoRAOptions(hard_loss_weight=0, distil=True)).options.distil
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="not installed"):
        trained(data, tmp_path)
