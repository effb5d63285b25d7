"""LIVE on the embedded world's model: what is trained, what the student computes, and what training leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icltool.components.interventions.files import read_intervention
from icltool.components.interventions.shift import ShiftVectors, shifting
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.teacher import Teacher
from icltool.components.learners.live.learner import Live
from icltool.components.learners.live.options import LiveOptions
from icltool.contracts import Example, GenerationOptions, InterventionLearner, InterventionSet, Prompt
from icltool.contracts.options import options_from
from icltool.errors import ConfigError, DataError, StoreError
from tests.components.learners.captioner.runs import Ending
from tests.components.learners.interventions.sets import SMALL, batch_and_logits, intervention_set, module_of
from tests.components.learners.synthetic import RecordingProgress


def test_it_is_a_learner_that_steers() -> None:
    assert isinstance(Live(LiveOptions()), InterventionLearner)
    resolved = Live(LiveOptions()).identity()
    published = {"shots": 32, "max_train_size": 8000, "lr": 1e-3, "alpha_lr": 1e-2, "alpha": 0.1, "weight_decay": 1e-3}
    published |= {"warmup": 0.1, "clip": 1.0, "epochs": 10, "batch_size": 8, "accumulate": 2, "hard_loss_weight": 0.5}
    assert {key: resolved[key] for key in published} == published
    assert json.loads(json.dumps(resolved)) == resolved


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_gradients_reach_vectors_alphas_and_temperature_only(
    data: InterventionSet, learned: bool, checkpointing: bool
) -> None:
    model: Any = data.model
    schedule = "learned" if learned else "fixed"
    module = module_of(data, temperature=2.0, temperature_schedule=schedule, grad_checkpointing=checkpointing)
    with checkpointed(model.checkpointed_layers() if checkpointing else ()):
        module.backward(module.total(module.losses([0, 1, 2])))
    names = {"student.vectors", "student.alphas"} | ({"log_temperature"} if learned else set())
    assert {name for name, _ in module.named_parameters()} == names
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) > 0
    assert all(p.grad is None and not p.requires_grad for p in model.model.parameters())
    assert all("forward" not in vars(layer) for layer in model.checkpointed_layers())


def test_checkpointing_changes_no_gradient(data: InterventionSet) -> None:
    actual = []
    for checkpointing in (False, True):
        module = module_of(data, grad_checkpointing=checkpointing)
        with checkpointed(data.model.checkpointed_layers() if checkpointing else ()):  # type: ignore[attr-defined]
            module.backward(module.total(module.losses([0, 1, 2])))
        actual.append([p.grad for p in module.parameters()])
    for one, other in zip(*actual, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-8)


def test_the_loss_is_the_one_written_down(data: InterventionSet) -> None:
    """A plain twin: teacher and student prompt by prompt, token by token."""
    module = module_of(data, hard_loss_weight=0.25, temperature=1.5)
    divergence, entropy, count = 0.0, 0.0, 0
    shifts = module.student.weights()[:, None] * module.student.vectors
    for position in (0, 3, 7):
        prompts = module.draws.prompts([position], 2, 0)
        _, teacher = batch_and_logits(data, prompts)
        plain = module.draws.plain_prompts([position])
        assert len(prompts[0].images) == 3
        assert len(plain[0].images) == 1
        assert plain[0].target == prompts[0].target
        with shifting(data.model, shifts.__getitem__):  # type: ignore[arg-type]
            batch, student = batch_and_logits(data, plain)
        for t, s, token in zip(teacher, student, batch.tokens, strict=True):
            p, q = (t / 1.5).softmax(-1), (s / 1.5).log_softmax(-1)
            divergence += float((p * (p.log() - q)).sum().detach()) * 1.5**2
            entropy -= float(s.log_softmax(-1)[token].detach())
            count += 1
    losses = module.losses([0, 3, 7])
    assert float(losses["divergence"].detach()) == pytest.approx(divergence / count, rel=1e-4)
    assert float(losses["cross_entropy"].detach()) == pytest.approx(entropy / count, rel=1e-5)
    total = float(module.total(losses).detach())
    assert total == pytest.approx((divergence + 0.25 * entropy) / count, rel=1e-4)


def test_the_first_answer_token_and_the_end_are_among_those_compared(data: InterventionSet, tiny_model: Any) -> None:
    draws = Draws(data, 12, 0)
    (prompt,) = draws.plain_prompts([0])
    batch, _ = batch_and_logits(data, [prompt])
    ids = tiny_model.tokenizer(prompt.text + prompt.target, add_special_tokens=False)["input_ids"]
    before = len(tiny_model.tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
    assert batch.tokens.tolist() == ids[before:]
    assert batch.columns.tolist() == list(range(before - 1, len(ids) - 1))
    assert ids[-1] == tiny_model.tokenizer.eos_token_id


def test_teacher_and_student_are_scored_on_the_same_tokens(data: InterventionSet) -> None:
    draws = Draws(data, 12, 0)
    short, _ = batch_and_logits(data, draws.plain_prompts(range(5)))
    long, _ = batch_and_logits(data, draws.prompts(range(5), 3, 1))
    assert short.tokens.tolist() == long.tokens.tolist()
    assert short.rows.tolist() == long.rows.tolist()


def test_with_alpha_0_the_student_is_the_model_without_demonstrations(data: InterventionSet, tiny_model: Any) -> None:
    module = module_of(data, alpha=0.0)
    prompts = module.draws.plain_prompts([0, 1, 2])
    plain = tiny_model.score(prompts, 3)
    with module.student.applied():
        shifted = tiny_model.score(prompts, 3)
    assert [s.log_prob for s in shifted] == pytest.approx([s.log_prob for s in plain], abs=1e-5)


def large(tiny_model: Any, size: float = 6.0) -> Any:
    return size * torch.randn(4, 128, generator=torch.Generator().manual_seed(3))


def test_the_model_is_bit_equal_after_the_vectors_are_gone(data: InterventionSet, tiny_model: Any) -> None:
    prompts = Draws(data, 12, 0).plain_prompts([0, 1, 2])
    before = tiny_model.score(prompts, 3)
    shifts = large(tiny_model)
    with shifting(tiny_model, shifts.__getitem__):
        changed = tiny_model.score(prompts, 3)
    missing = [Prompt("<s>a", ("/no/such.png",), "b")]
    with pytest.raises(DataError, match="such"), shifting(tiny_model, shifts.__getitem__):
        tiny_model.score(missing, 1)
    assert max(abs(a.log_prob - b.log_prob) for a, b in zip(before, changed, strict=True)) > 0.1
    assert tiny_model.score(prompts, 3) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_model.model.model.layers)


def test_under_the_vectors_a_batch_of_n_equals_n_single_runs(data: InterventionSet, tiny_model: Any) -> None:
    draws = Draws(data, 12, 0)
    prompts = [*draws.plain_prompts([0, 1, 2]), *draws.prompts([3, 4], 2)]  # several lengths: padding on both sides
    options = GenerationOptions(max_new_tokens=8, num_beams=3)
    shifts = large(tiny_model, 2.0)
    with shifting(tiny_model, shifts.__getitem__):
        scores = [tiny_model.score([p], 1)[0].log_prob for p in prompts]
        answers = [tiny_model.generate([p], options, 1)[0] for p in prompts]
        assert [s.log_prob for s in tiny_model.score(prompts, 5)] == pytest.approx(scores, abs=1e-4)
        assert tiny_model.generate(prompts, options, 5) == answers
    assert tiny_model.generate(prompts, options, 5) != answers


@pytest.mark.parametrize("beams", [1, 3])
def test_under_the_vectors_generating_with_a_cache_equals_generating_without(
    data: InterventionSet, tiny_model: Any, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = Draws(data, 12, 0).plain_prompts([0, 1, 2])
    options = GenerationOptions(max_new_tokens=8, num_beams=beams)
    shifts = large(tiny_model, 2.0)
    generate, lengths = tiny_model.model.generate, []
    embed = tiny_model.model.get_input_embeddings()
    seen = embed.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    with seen, shifting(tiny_model, shifts.__getitem__):
        with_cache = tiny_model.generate(prompts, options, 3)
        assert lengths[-1] == 1
        monkeypatch.setattr(tiny_model.model, "generate", lambda **kw: generate(**kw, use_cache=False))
        assert tiny_model.generate(prompts, options, 3) == with_cache
        assert lengths[-1] > 1


@pytest.mark.parametrize("top_k", [0, 5])
def test_kept_answers_equal_fresh_ones_and_the_teacher_reads_each_prompt_once(
    data: InterventionSet, top_k: int
) -> None:
    options = LiveOptions(**SMALL, teacher_draws=2, teacher_top_k=top_k)
    draws = Draws(data, 12, 0)
    keeping, fresh = Teacher(data, draws, options), Teacher(data, draws, LiveOptions(**SMALL))
    for epoch in range(4):
        for positions in ([0, 1, 2], [2, 5]):
            cached = keeping.answers(positions, epoch, 1.0)
            exact = fresh.answers(positions, epoch % 2, 1.0)
            if not top_k:
                assert torch.allclose(cached.log_probs, exact.log_probs, atol=1e-5)
                continue
            assert cached.tokens is not None
            assert cached.rest is not None
            top, tokens = exact.log_probs.topk(top_k, -1)
            assert torch.allclose(cached.log_probs, top, atol=1e-5)
            assert torch.equal(cached.tokens, tokens)
            assert torch.allclose(cached.rest.exp(), 1 - top.exp().sum(-1), atol=1e-5)
    assert keeping.read == 2 * 4  # two draws of four examples
    assert fresh.read == 4 * 5


def test_without_kept_answers_every_epoch_shows_other_demonstrations(data: InterventionSet) -> None:
    teacher = Teacher(data, Draws(data, 12, 0), LiveOptions(**SMALL))
    first, second = (teacher.answers([0], epoch, 1.0) for epoch in (0, 1))
    assert not torch.allclose(first.log_probs, second.log_probs, atol=1e-3)


def test_gradients_do_not_depend_on_where_features_come_from(tiny_model: Any, examples: list[Example]) -> None:
    actual = []
    for cached in (True, False):
        module = module_of(intervention_set(tiny_model, examples, cached=cached))
        module.backward(module.total(module.losses([0, 1])))
        actual.append(module.student.vectors.grad)
    assert torch.allclose(*actual, atol=1e-6)


def trained(data: InterventionSet, folder: Path, progress: Any = None, **options: Any) -> Any:
    learner = Live(LiveOptions(**{**SMALL, "max_train_size": 12, **options}))
    return learner.learn_intervention(data, folder, 3, progress or RecordingProgress())


def test_training_lowers_the_loss_and_leaves_a_file_that_is_used(
    data: InterventionSet, tiny_model: Any, tmp_path: Path
) -> None:
    progress = RecordingProgress()
    prompts = Draws(data, 12, 3).plain_prompts(range(12))
    before = tiny_model.score(prompts, 4)
    outcome = trained(data, tmp_path, progress, epochs=6, teacher_draws=1, lr=3e-2, alpha_lr=1e-1)
    assert tiny_model.score(prompts, 4) == before
    assert [record["epoch"] for record in outcome.history] == [1, 2, 3, 4, 5, 6]
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]
    assert progress.tasks == [("train live", 18)]
    assert progress.done == 18
    stored = read_intervention(tmp_path / "last.safetensors")
    assert {name: tuple(t.shape) for name, t in stored.tensors.items()} == {"vectors": (4, 128), "alphas": (4,)}
    assert stored.numbers == 4 * 128 + 4
    assert stored.base == tiny_model.base_model()
    assert stored.about["shots"] == 2
    assert stored.about["dataset"] == "in memory"
    vectors = ShiftVectors(StoredOptions(method="live", file=tmp_path / "last.safetensors"))
    with vectors.applied(tiny_model):
        after = tiny_model.score(prompts, 4)
    assert sum(s.mean for s in after) > sum(s.mean for s in before)
    card = (tmp_path / "README.md").read_text()
    assert "tiny-idefics" in card
    assert stored.base.weights in card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "last.safetensors", "logs"]
    rows = list(csv.DictReader((tmp_path / "logs" / "metrics.csv").open()))
    assert any(row.get("divergence") for row in rows)


def test_the_same_seed_gives_the_same_file(data: InterventionSet, tmp_path: Path) -> None:
    files = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        files.append(load_file(trained(data, tmp_path / name, epochs=1).checkpoints["last"]))
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])


@pytest.mark.parametrize("options", [{}, {"teacher_draws": 2, "temperature_schedule": "learned", "teacher_top_k": 0}])
def test_an_interrupted_training_goes_on_and_gives_the_same_file(
    data: InterventionSet, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole_run = trained(data, tmp_path / "whole", epochs=3, **options)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "cut", Ending(5), epochs=3, **options)
    assert (tmp_path / "cut" / "last.safetensors").is_file()  # that of the first epoch
    assert read_intervention(tmp_path / "cut" / "last.safetensors").about["figures"]["epoch"] == 1
    progress = Ending(10**6)
    outcome = trained(data, tmp_path / "cut", progress, epochs=3, **options)
    assert progress.tasks == [("train live", 6)]
    assert any("resuming" in line for line in progress.said)
    one, other = (load_file(o.checkpoints["last"]) for o in (whole_run, outcome))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert [r["epoch"] for r in outcome.history] == [1, 2, 3]
    assert outcome.history == whole_run.history


def test_a_state_of_another_number_of_processes_is_told(
    data: InterventionSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.accelerators import CPUAccelerator

    trainer = {"accelerator": "cpu", "devices": "auto", "strategy": "auto"}
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path, Ending(5), epochs=3, trainer=trainer)
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 2))
    with pytest.raises(StoreError, match="was saved by a training with 1 process, but this one has 2"):
        trained(data, tmp_path, epochs=3, trainer=trainer)
    monkeypatch.undo()
    assert len(trained(data, tmp_path, epochs=3, trainer=trainer).history) == 3


def test_a_sigmoid_of_the_weights_is_in_the_file_already(data: InterventionSet, tmp_path: Path) -> None:
    trained(data, tmp_path, alpha_sigmoid=True, alpha=0.0, epochs=1)
    alphas = load_file(tmp_path / "last.safetensors")["alphas"]
    assert ((alphas > 0.4) & (alphas < 0.6)).all()


def test_a_temperature_decays_to_one(data: InterventionSet, tmp_path: Path) -> None:
    module = module_of(data, temperature=3.0, temperature_schedule="decay")
    seen = []
    for step in (0, 3, 6):
        module._trainer = type("T", (), {"estimated_stepping_batches": 6, "global_step": step, "barebones": False})()
        seen.append(float(module.temperature()))
    assert seen == [3.0, 2.0, 1.0]
    trained(data, tmp_path, temperature=3.0, temperature_schedule="decay")


def test_a_learned_temperature_is_trained_and_told(data: InterventionSet, tmp_path: Path) -> None:
    outcome = trained(data, tmp_path, temperature=2.0, temperature_schedule="learned")
    assert outcome.history[-1]["temperature"] != 2.0
    assert "log_temperature" not in load_file(tmp_path / "last.safetensors")


def test_bad_options_and_sets_are_one_clear_line(data: InterventionSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no option 'shot'") as caught:
        options_from("live", LiveOptions, {"shot": 2})
    assert "did you mean 'shots'" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="needs whole stored answers: set teacher_top_k=0"):
        options_from("live", LiveOptions, {"teacher_draws": 1, "temperature_schedule": "learned"})
    with pytest.raises(ConfigError, match="logger cannot be set"):
        options_from("live", LiveOptions, {"trainer": {"logger": True}})
    with pytest.raises(DataError, match="shots=20 needs more demonstrations"):
        trained(data, tmp_path, shots=20)
    with pytest.raises(ConfigError, match="Trainer rejects its options"):
        trained(data, tmp_path, trainer={"devices": 0})
    with pytest.raises(ConfigError, match="diverged"):
        trained(data, tmp_path, clip=0, lr=1e30, alpha_lr=1e30)
    with pytest.raises(ConfigError, match="set max_epochs with the learner's option instead: --option epochs="):
        options_from("live", LiveOptions, {"trainer": {"max_epochs": 1}})
    with pytest.raises(ConfigError, match="alpha must be a number, got 'inf'"):
        options_from("live", LiveOptions, {"alpha": "inf"})
