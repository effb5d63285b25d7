"""The teacher, which is the frozen model with demonstrations in its prompt, and the cache of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from icltool.components.learners.interventions.answers import device_of, features_of, hooked_model
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.losses import TeacherLogProbs, cut, whole
from icltool.components.learners.interventions.options import InterventionOptions
from icltool.contracts import AnswerBatch, InterventionSet
from icltool.errors import DataError


class Teacher:
    """Answers of the frozen model to prompts with demonstrations, as distributions over each token of the target.

    With `teacher_draws` each example has that many fixed sets of demonstrations; the teacher's answer to each is computed once
    and cached on the CPU (the top-k tokens with the mass of all others, or all logits).
    """

    def __init__(self, data: InterventionSet, draws: Draws, options: InterventionOptions) -> None:
        self.data, self.draws, self.options = data, draws, options
        self._model = hooked_model(data, "a teacher")
        self._cached: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self._targets: dict[int, Tensor] = {}
        self._compared: set[int] = set()
        #: Prompts that the model has read so far.
        self.read = 0

    def draw(self, epoch: int) -> int:
        """The index of the set of demonstrations used in this epoch (from 0)."""
        return epoch if self.options.teacher_draws is None else epoch % self.options.teacher_draws

    def logits(self, positions: Sequence[int], draw: int) -> list[Tensor]:
        """Logits [n, vocabulary] for the targets of the examples at these positions, on the model's device, without
        gradients."""
        prompts = self.draws.prompts(positions, self.options.shots, draw)
        self.read += len(prompts)
        with torch.no_grad():
            batch = self._model.answer_batch(prompts, features_of(self.data, prompts))
            logits = self.forward(batch)
        counts = torch.bincount(batch.rows, minlength=len(prompts)).tolist()
        targets = zip(positions, torch.split(batch.tokens, counts), strict=True)
        self._targets |= {p: tokens for p, tokens in targets if p not in self._targets}
        return list(torch.split(logits, counts))

    def forward(self, batch: AnswerBatch) -> Tensor:
        """Logits [N, vocabulary] of a batch with demonstrations, by one forward pass."""
        logits: Tensor = self._model.answer_logits(batch)
        return logits

    def answers(self, positions: Sequence[int], epoch: int, temperature: float | Tensor) -> TeacherLogProbs:
        """The distributions at all target tokens of these examples, concatenated, on the model's device."""
        draw = self.draw(epoch)
        if self.options.teacher_draws is None:
            return whole(torch.cat(self.logits(positions, draw)), temperature)
        missing = [p for p in positions if (p, draw) not in self._cached]
        if missing:
            for position, logits in zip(missing, self.logits(missing, draw), strict=True):
                self._cached[position, draw] = self._packed(logits)
        device = device_of(self.data.model)
        parts = [torch.cat(c).to(device) for c in zip(*(self._cached[p, draw] for p in positions), strict=True)]
        if len(parts) == 1:
            return whole(parts[0], temperature)
        return TeacherLogProbs(parts[0], parts[1].long(), parts[2])

    def has_cached(self, position: int, epoch: int) -> bool:
        """Whether the answer to this example's demonstrations of this epoch is cached."""
        return (position, self.draw(epoch)) in self._cached

    def expect_targets(self, positions: Sequence[int], tokens: Tensor) -> None:
        """Compares the student's target tokens with the teacher's, once for each example. Raises DataError if a target is
        tokenized differently after demonstrations, since distributions would not correspond."""
        if self._compared.issuperset(positions):
            return
        teacher_tokens = torch.cat([self._targets[position] for position in positions])
        if not torch.equal(teacher_tokens, tokens):
            raise DataError(
                "answers are tokenized differently after demonstrations than without them, so their tokens do not correspond",
                "choose another --prompt-template, or a model with another tokenizer",
            )
        self._compared.update(positions)

    def _packed(self, logits: Tensor) -> tuple[Tensor, ...]:
        """The form that is cached: (log-probabilities, tokens int32, rest), or the logits if the vocabulary is not larger."""
        k = self.options.teacher_top_k
        if not k or k >= logits.shape[-1]:
            return (logits.cpu(),)
        truncated = cut(logits, k, self.options.temperature)
        assert truncated.tokens is not None
        assert truncated.rest is not None
        return truncated.log_probs.cpu(), truncated.tokens.int().cpu(), truncated.rest.cpu()
