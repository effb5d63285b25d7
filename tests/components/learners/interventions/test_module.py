"""The training of an intervention: schedule, order of work, what is compared and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.learners.interventions.answers import features_of
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.teacher import Teacher
from icltool.components.learners.live.options import LiveOptions
from icltool.contracts import Example, InterventionSet
from icltool.errors import ConfigError, DataError
from tests.components.learners.interventions.sets import SMALL, batch_and_logits, intervention_set, module_of


def test_learning_rates_follow_the_schedule_at_every_optimiser_step(data: InterventionSet, tmp_path: Path) -> None:
    """Three batches an epoch, two of which make a step: the last step of an epoch has one batch alone."""
    from lightning.pytorch import Callback

    from icltool.components.learners.fitting.trainer import learning_rate_factor, make_trainer
    from icltool.components.learners.interventions import fitting

    seen: list[tuple[int, list[float], list[float]]] = []

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            groups = optimizer.param_groups
            seen.append((trainer.global_step, [g["lr"] for g in groups], [g["weight_decay"] for g in groups]))

    module = module_of(
        data, accumulate=2, epochs=4, lr=1e-3, alpha_lr=1e-2, warmup=0.25, temperature_schedule="learned"
    )
    settings = fitting.trainer_settings(module.options, data)
    trainer = make_trainer(settings, tmp_path, [], [Watch()])
    trainer.fit(module)
    steps = 4 * 2
    assert [step for step, _, _ in seen] == list(range(steps))
    for step, rates, decay in seen:
        factor = learning_rate_factor(step, 2, steps)
        assert rates == pytest.approx([1e-3 * factor, 1e-2 * factor, 1e-3 * factor])
        assert decay == [1e-3, 1e-3, 0.0]
    assert [learning_rate_factor(step, 2, steps) for step in (0, 1, 2, 5)] == pytest.approx([0.5, 1.0, 1.0, 0.5])


def test_the_gradient_is_clipped_unless_clip_is_0(data: InterventionSet) -> None:
    from icltool.components.learners.interventions.fitting import trainer_settings

    assert trainer_settings(LiveOptions(**SMALL), data)["gradient_clip_val"] == 1.0
    assert trainer_settings(LiveOptions(**SMALL, clip=0), data)["gradient_clip_val"] is None


def test_the_teacher_reads_before_the_student(data: InterventionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is held for a backward pass while the long prompts are read."""
    module, order = module_of(data), []
    real: Any = data.model.answer_logits  # type: ignore[attr-defined]

    def watched(batch: Any) -> Any:
        order.append(torch.is_grad_enabled())
        return real(batch)

    monkeypatch.setattr(data.model, "answer_logits", watched)
    module.losses([0, 1])
    assert order == [False, True]


def test_targets_that_are_other_tokens_after_demonstrations_are_refused(data: InterventionSet) -> None:
    teacher = Teacher(data, Draws(data, 12, 0), LiveOptions(**SMALL))
    teacher.answers([0, 1], 0, 1.0)
    batch, _ = batch_and_logits(data, teacher.draws.plain_prompts([0, 1]))
    other = batch.tokens.clone()
    other[0] += 1
    with pytest.raises(DataError, match="their tokens do not correspond"):
        teacher.expect_targets([0, 1], other)
    teacher.expect_targets([0, 1], batch.tokens)
    teacher.expect_targets([0, 1], other)  # compared once


def test_only_images_that_are_needed_are_announced(data: InterventionSet) -> None:
    from icltool.components.learners.interventions.order import EpochBatches

    module = module_of(data, teacher_draws=1)
    module._trainer = type("T", (), {"current_epoch": 0, "barebones": False})()  # type: ignore[assignment]
    batches = EpochBatches(12, 4, 0)
    assert len(list(module._paths(batches))) == 12 * 3
    module.teacher.answers(range(12), 0, 1.0)
    assert len(list(module._paths(batches))) == 12


def test_a_step_that_overflowed_is_left_out_of_the_means(data: InterventionSet) -> None:
    module = module_of(data)
    values = iter([1.0, float("nan"), 3.0])
    strategy = type("S", (), {"reduce": staticmethod(lambda total, reduce_op: total)})()
    module._trainer = type(  # type: ignore[assignment]
        "T", (), {"strategy": strategy, "global_step": 3, "current_epoch": 0, "barebones": False, "world_size": 1}
    )()
    module.losses = lambda positions: {"cross_entropy": torch.tensor(next(values))}  # type: ignore[method-assign]
    for positions in ([0, 1], [2, 3], [4, 5]):
        module.training_step(positions, 0)
    module.summarise()
    assert module.figures["cross_entropy"] == 2.0
    values = iter([float("inf")] * 2 + [1.0])
    module._sums = {}
    for positions in ([0, 1], [2, 3], [4, 5]):
        module.training_step(positions, 0)
    with pytest.raises(ConfigError, match="no finite loss for 4 of 6 examples"):
        module.summarise()


def test_a_process_without_a_share_gives_gradients_of_0_whatever_its_example_does(
    data: InterventionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 9 examples in batches of 8 the second process has none in the last."""
    from icltool.components.learners.interventions import module as module_under_test

    module = module_of(data, temperature_schedule="learned")
    module._trainer = type(  # type: ignore[assignment]
        "T", (), {"global_step": 3, "current_epoch": 0, "barebones": False, "world_size": 2}
    )()
    module._batches = module_under_test.EpochBatches(9, 4, 0, world=2, rank=1)
    sent = []

    def beside_another(trainer: Any, values: torch.Tensor) -> torch.Tensor:
        sent.append(values)
        return values + torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0])

    monkeypatch.setattr(module_under_test, "over_processes", beside_another)
    losses = module.losses
    module.losses = lambda positions: {k: v * torch.inf for k, v in losses(positions).items()}  # type: ignore[method-assign]
    loss = module.training_step([0], 1)
    loss.backward()
    assert loss.item() == 0
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name}: DDP would wait for it"
        assert not parameter.grad.any(), name
    assert not sent[0].any()
    assert module.batch_loss == 2


def test_features_have_the_model_s_dtype_also_under_autocast(tiny_model: Any, examples: list[Example]) -> None:
    """The vision encoder runs as it does elsewhere: features that autocast made would not fit the rest of the model, nor
    the store of other runs."""
    training_set = intervention_set(tiny_model, examples)
    seen: list[bool] = []
    real = training_set.features

    def watched(paths: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return real(paths)

    from dataclasses import replace

    watching = replace(training_set, features=watched)
    with torch.autocast("cpu", torch.bfloat16):
        features_of(watching, Draws(training_set, 4, 0).plain_prompts([0]))
    assert seen == [False]
