"""The parameters that MimIC trains, and the alignment of the student's states with the teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from icltool.components.interventions.head_shift import HeadShifts, head_shape, shifting_heads
from icltool.components.learners.interventions.answers import features_of
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.losses import cross_entropy, divergence
from icltool.components.learners.interventions.module import InterventionModule, ParameterGroup, Student
from icltool.components.learners.interventions.teacher import Teacher
from icltool.components.learners.mimic.options import MimicOptions
from icltool.contracts import AnswerBatch, InterventionSet, SupportsDecoderHooks


class LearnedHeads(Student):
    """Vectors v ~ N(0, init_std^2) and weights w ~ N(0, weight_std^2) [L, H, W], and biases [L, H]."""

    def __init__(self, model: SupportsDecoderHooks, options: MimicOptions) -> None:
        super().__init__()
        shape = head_shape(model, "mimic")
        self.vectors = torch.nn.Parameter(torch.randn(shape) * options.init_std)
        self.weights = torch.nn.Parameter(torch.randn(shape) * options.weight_std)
        self.biases = torch.nn.Parameter(torch.full(shape[:2], float(options.bias)))
        self._model, self._lr = (model,), options.lr  # in a tuple, so that it is not a submodule

    def groups(self) -> list[ParameterGroup]:
        """See Student. Weight decay on biases would pull magnitudes towards one half."""
        return [
            {"params": [self.vectors, self.weights], "lr": self._lr},
            {"params": [self.biases], "lr": self._lr, "weight_decay": 0.0},
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """See Student."""
        with shifting_heads(self._model[0], lambda: HeadShifts(self.vectors, self.weights, self.biases)):
            yield

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that HeadShift reads."""
        return {name: parameter.float() for name, parameter in self.named_parameters()}


class MimicModule(InterventionModule):
    """Minimises `align` x alignment + `hard_loss_weight` x cross-entropy + `divergence` x KL(teacher || student).

    Alignment is the mean over layers, tokens of the answers and dimensions of the squared difference between the states of
    student and teacher (MimIC, equation 6, has the first two).
    """

    options: MimicOptions
    teacher: AligningTeacher

    def __init__(
        self, student: LearnedHeads, data: InterventionSet, draws: Draws, options: MimicOptions, seed: int
    ) -> None:
        super().__init__(student, data, draws, options, seed)
        self.teacher = AligningTeacher(data, draws, options)
        self.distils = bool(options.align or options.divergence)

    def losses(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """See InterventionModule; with the alignment."""
        options, epoch, temperature = self.options, self.current_epoch, self.temperature()
        answers = self.teacher.answers(positions, epoch, temperature) if options.divergence else None
        teacher_states = self.teacher.states(positions, epoch) if options.align else None
        states: list[Tensor] = []
        prompts = self.draws.plain_prompts(positions)
        batch = self.hooked.answer_batch(prompts, features_of(self.data, prompts))
        with self.student.applied(), recording(self.hooked, batch, None if teacher_states is None else states):
            logits = self.hooked.answer_logits(batch)
        self.tokens = len(batch.tokens)
        losses = {"cross_entropy": cross_entropy(logits, batch.tokens)}
        if self.distils:
            self.teacher.expect_targets(positions, batch.tokens)
        if answers is not None:
            losses["divergence"] = divergence(answers, logits, temperature)
        if teacher_states is not None:
            losses["alignment"] = alignment(states, teacher_states, options.align_relative)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """See InterventionModule."""
        options = self.options
        weights = {
            "cross_entropy": options.hard_loss_weight,
            "divergence": options.divergence,
            "alignment": options.align,
        }
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


class AligningTeacher(Teacher):
    """A teacher that also returns its states at the tokens that predict its answers. If its answers are cached, so are its
    states: on the CPU, in the model's dtype."""

    options: MimicOptions

    def __init__(self, data: InterventionSet, draws: Draws, options: MimicOptions) -> None:
        super().__init__(data, draws, options)
        self._states: dict[tuple[int, int], Tensor] = {}
        self._recorded: list[Tensor] = []

    def forward(self, batch: AnswerBatch) -> Tensor:
        """See Teacher."""
        self._recorded = []
        with recording(self._model, batch, self._recorded if self.options.align else None):
            return super().forward(batch)

    def logits(self, positions: Sequence[int], draw: int) -> list[Tensor]:
        """See Teacher."""
        logits = super().logits(positions, draw)
        if not self._recorded:
            return logits
        device = self._recorded[-1].device if self.options.teacher_draws is None else "cpu"
        counts = [len(part) for part in logits]
        states = torch.split(torch.stack([part.to(device) for part in self._recorded]), counts, 1)
        self._recorded = []
        if self.options.teacher_draws is None:
            self._states = {}
        self._states |= {(position, draw): part.clone() for position, part in zip(positions, states, strict=True)}
        return logits

    def states(self, positions: Sequence[int], epoch: int) -> Tensor:
        """[L, N, D]: states at the output of every layer for all target tokens of these examples, concatenated."""
        draw = self.draw(epoch)
        missing = [p for p in positions if (p, draw) not in self._states]
        if missing:
            self.logits(missing if self.options.teacher_draws is not None else positions, draw)
        return torch.cat([self._states[p, draw] for p in positions], 1)


@contextmanager
def recording(model: SupportsDecoderHooks, batch: AnswerBatch, into: list[Tensor] | None) -> Iterator[None]:
    """A context in which the output [N, D] of each decoder layer at the batch's positions is appended to `into`, if any."""

    def record(module: torch.nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states = output[0] if isinstance(output, tuple) else output
        assert into is not None
        into.append(states[batch.rows.to(states.device), batch.columns.to(states.device)])

    handles = [] if into is None else [layer.register_forward_hook(record) for layer in model.decoder_layers()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def alignment(student: Sequence[Tensor], teacher: Tensor, relative: bool) -> Tensor:
    """The mean squared difference over all layers. With `relative` each layer's is divided by the mean square of the teacher's
    states there. `student` [N, D] for each of L layers, `teacher` [L, N, D]; computed in float32."""
    device, parts = student[-1].device, []
    for own, other in zip(student, teacher, strict=True):
        aim = other.to(own.device).float()
        unit = aim.square().mean().clamp_min(torch.finfo(aim.dtype).tiny) if relative else 1.0
        parts.append((torch.nn.functional.mse_loss(own.float(), aim) / unit).to(device))
    return torch.stack(parts).mean()
