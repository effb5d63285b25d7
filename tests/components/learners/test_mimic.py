"""MimIC on the embedded world's model: its loss by hand, the teacher's states, what training leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from icltool.components.interventions.files import read_intervention
from icltool.components.interventions.head_shift import HeadShift
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.interventions.answers import features_of
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.mimic.heads import AligningTeacher, LearnedHeads, MimicModule, recording
from icltool.components.learners.mimic.learner import Mimic
from icltool.components.learners.mimic.options import MimicOptions
from icltool.contracts import Example, InterventionLearner, InterventionSet, Prompt
from icltool.errors import ConfigError
from icltool.plugin.manager import component
from tests.components.learners.captioner.runs import Ending
from tests.components.learners.interventions.sets import intervention_set
from tests.components.learners.synthetic import RecordingProgress
from tests.conftest import Scenery

SMALL: dict[str, Any] = {"shots": 2, "epochs": 2, "batch_size": 4, "accumulate": 1, "lr": 1e-2}


@pytest.fixture(scope="module")
def examples(scenery: Scenery) -> list[Example]:
    return scenery.mixed(16, seed=6)


@pytest.fixture(scope="module")
def data(tiny_model: Any, examples: list[Example]) -> InterventionSet:
    return intervention_set(tiny_model, examples)


def module_of(data: InterventionSet, **options: Any) -> MimicModule:
    chosen = MimicOptions(**{**SMALL, "init_std": 0.5, **options})
    torch.manual_seed(0)
    model: Any = data.model
    return MimicModule(LearnedHeads(model, chosen), data, Draws(data, 12, 0), chosen, 0)


def hidden_states(data: InterventionSet, prompt: Prompt) -> tuple[Any, Tensor, Tensor]:
    """The twin: (batch, logits, [L, N, D]) of one prompt, by plain hooks that keep everything."""
    model: Any = data.model
    seen: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(keep) for layer in model.decoder_layers()]
    batch = model.answer_batch([prompt], features_of(data, [prompt]))
    with torch.no_grad():
        logits = model.answer_logits(batch)
    for handle in handles:
        handle.remove()
    return batch, logits, torch.stack([states[0, batch.columns] for states in seen])


def test_it_is_a_learner_that_steers() -> None:
    assert isinstance(Mimic(MimicOptions()), InterventionLearner)
    resolved = Mimic(MimicOptions()).identity()
    published = {"max_train_size": 1000, "align": 1.0, "divergence": 0.0, "hard_loss_weight": 0.5, "init_std": 0.001}
    published |= {"weight_decay": 1e-3, "warmup": 0.1, "clip": 1.0}
    assert {key: resolved[key] for key in published} == published
    assert json.loads(json.dumps(resolved)) == resolved


@pytest.mark.parametrize("relative", [False, True])
def test_the_loss_is_the_one_written_down(data: InterventionSet, relative: bool) -> None:
    module = module_of(data, align=0.3, divergence=0.7, hard_loss_weight=0.25, align_relative=relative)
    squares, sizes, divergence, entropy, count = torch.zeros(4), torch.zeros(4), 0.0, 0.0, 0
    for position in (0, 3, 7):
        _, demonstrated, teacher = hidden_states(data, *module.draws.prompts([position], 2, 0))
        with module.student.applied():
            batch, logits, student = hidden_states(data, *module.draws.plain_prompts([position]))
        assert student.shape == teacher.shape == (4, len(batch.tokens), 128)
        squares += (student - teacher).square().sum((1, 2))
        sizes += teacher.square().sum((1, 2))
        divergence += float((demonstrated.softmax(-1) * (demonstrated.log_softmax(-1) - logits.log_softmax(-1))).sum())
        entropy -= float(logits.log_softmax(-1).gather(1, batch.tokens[:, None]).sum())
        count += len(batch.tokens)
    losses = module.losses([0, 3, 7])
    actual = {name: float(value.detach()) for name, value in losses.items()}
    aligned = float((squares / (sizes if relative else 128 * count)).mean())
    expected = {"alignment": aligned, "divergence": divergence / count, "cross_entropy": entropy / count}
    assert actual == pytest.approx(expected, rel=1e-4)
    total = 0.3 * aligned + (0.7 * divergence + 0.25 * entropy) / count
    assert float(module.total(losses).detach()) == pytest.approx(total, rel=1e-4)
    assert module.teacher.read == 3


@pytest.mark.parametrize("weights", [{}, {"divergence": 1.0}, {"align": 0.0, "divergence": 1.0}, {"align": 0.0}])
def test_gradients_reach_vectors_weights_and_biases_only(data: InterventionSet, weights: dict[str, float]) -> None:
    model: Any = data.model
    actual = []
    for twice in (False, True):
        module = module_of(data, grad_checkpointing=twice, **weights)
        with checkpointed(model.checkpointed_layers() if twice else ()):
            losses = module.losses([0, 1, 2])
            module.backward(module.total(losses))
        assert set(losses) == {"cross_entropy"} | ({"alignment"} if module.options.align else set()) | (
            {"divergence"} if weights.get("divergence") else set()
        )
        assert module.teacher.read == (3 if len(losses) > 1 else 0)
        actual.append({name: p.grad for name, p in module.named_parameters()})
    assert set(actual[0]) == {"student.vectors", "student.weights", "student.biases"}
    for name, one in actual[0].items():
        assert one is not None
        assert float(one.abs().sum()) > 0
        torch.testing.assert_close(one, actual[1][name], rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in model.model.parameters())


@pytest.mark.parametrize("divergence", [0.0, 1.0])
def test_kept_states_equal_fresh_ones_and_the_teacher_reads_each_prompt_once(
    data: InterventionSet, divergence: float
) -> None:
    draws = Draws(data, 12, 0)
    keeping, fresh = (
        AligningTeacher(data, draws, MimicOptions(**SMALL, divergence=divergence, teacher_draws=n)) for n in (2, None)
    )
    for epoch in range(4):
        for positions in ([0, 1, 2], [2, 5]):
            if divergence:
                keeping.answers(positions, epoch, 1.0)
                fresh.answers(positions, epoch % 2, 1.0)
            cached, exact = keeping.states(positions, epoch), fresh.states(positions, epoch % 2)
            torch.testing.assert_close(cached, exact, atol=1e-4, rtol=1e-4)
    assert keeping.read == 2 * 4  # two draws of four examples
    assert fresh.read == 4 * 5
    assert len(keeping._states) == 2 * 4
    assert len(fresh._states) == 2


def test_nothing_is_left_on_the_layers_when_a_pass_fails(data: InterventionSet) -> None:
    model: Any = data.model
    batch = model.answer_batch(module_of(data).draws.plain_prompts([0]), None)
    with pytest.raises(RuntimeError, match="stop"), recording(model, batch, []):
        raise RuntimeError("stop")
    assert not any(layer._forward_hooks for layer in model.decoder_layers())


def trained(data: InterventionSet, folder: Path, progress: Any = None, **options: Any) -> Any:
    learner = Mimic(MimicOptions(**{**SMALL, "max_train_size": 12, **options}))
    return learner.learn_intervention(data, folder, 3, progress or RecordingProgress())


def test_training_lowers_the_loss_and_leaves_a_file_that_is_used(
    data: InterventionSet, tiny_model: Any, tmp_path: Path
) -> None:
    prompts = Draws(data, 12, 3).plain_prompts(range(12))
    before = tiny_model.score(prompts, 4)
    outcome = trained(data, tmp_path, epochs=5, teacher_draws=1, lr=5e-2)
    assert tiny_model.score(prompts, 4) == before
    first, last = outcome.history[0], outcome.history[-1]
    assert last["alignment"] < first["alignment"]
    assert last["parameters"] == 4 * 4 * (32 + 32 + 1)
    stored = read_intervention(tmp_path / "last.safetensors")
    assert {n: tuple(t.shape) for n, t in stored.tensors.items()} == {
        "vectors": (4, 4, 32), "weights": (4, 4, 32), "biases": (4, 4),
    }  # fmt: skip
    assert stored.about["figures"]["parameters"] == stored.numbers == last["parameters"]
    intervention = HeadShift(StoredOptions(method="mimic", file=tmp_path / "last.safetensors"))
    with intervention.applied(tiny_model):
        after = tiny_model.score(prompts, 4)
    assert sum(s.mean for s in after) > sum(s.mean for s in before)
    assert "| parameters | 1040 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("options", [{}, {"teacher_draws": 2, "divergence": 0.5}])
def test_an_interrupted_training_goes_on_and_gives_the_same_file(
    data: InterventionSet, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole_run = trained(data, tmp_path / "whole", epochs=3, **options)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "cut", Ending(5), epochs=3, **options)
    assert read_intervention(tmp_path / "cut" / "last.safetensors").about["figures"]["epoch"] == 1
    outcome = trained(data, tmp_path / "cut", epochs=3, **options)
    one, other = (load_file(o.checkpoints["last"]) for o in (whole_run, outcome))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert outcome.history == whole_run.history


def test_bad_options_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="no option 'allign'") as caught:
        component("learners", "mimic", allign=1)
    assert "did you mean 'align'" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="nothing to minimise"):
        component("learners", "mimic", align=0, divergence=0, hard_loss_weight=0)
