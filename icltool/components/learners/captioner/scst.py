"""Self-critical sequence training: beams are samples, and their baseline is the mean over the beams of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from icltool.components.learners.captioner.losses import answer_log_probs, self_critical_loss
from icltool.components.learners.captioner.parts import tunable_model
from icltool.components.learners.captioner.rewards import Rewards
from icltool.contracts import BeamSample, Example, FineTuningSet, Float64Array, Model, Prompt, Task
from icltool.errors import ConfigError


def check_beams(data: FineTuningSet) -> None:
    """Raises ConfigError if there is only one beam, which could not be compared with others."""
    if data.generation.num_beams < 2:
        raise ConfigError(
            f"scst needs at least two beams per image, but num_beams is {data.generation.num_beams}",
            "for example --option num_beams=5",
        )


def advantages_of(rewards: Float64Array, counts: Sequence[int]) -> Float64Array:
    """float64 [sum of counts]: each reward minus the mean over its image's beams; 0 if all its beams have the same reward."""
    advantages = []
    for own in np.split(rewards, np.cumsum(counts)[:-1]):
        advantages.append(np.zeros_like(own) if np.ptp(own) == 0 else own - own.mean())
    return np.concatenate(advantages)


class SelfCritical:
    """The loss of a batch, and its mean reward. `rewards` are computed while the gradient's forward pass runs."""

    def __init__(self, data: FineTuningSet, rewards: Rewards) -> None:
        check_beams(data)
        self.data, self.rewards = data, rewards

    def loss(
        self, examples: Sequence[Example], prompts: Sequence[Prompt], pixels: Tensor, sampled: list[list[BeamSample]]
    ) -> tuple[Tensor, float]:
        """(loss, mean reward). `sampled` are the beams of each prompt; a beam without tokens counts for the mean but has no
        log-probability."""
        model = tunable_model(self.data)
        references = [example.references for example in examples]
        jobs = self.rewards.submit(_texts(model, self.data.task, sampled), references)
        beams = [(place, beam) for place, own in enumerate(sampled) for beam in own]
        spoken = [(place, beam) for place, beam in beams if beam.ids]
        log_probs = torch.zeros(0, device=pixels.device)
        if spoken:
            places = [place for place, _ in spoken]
            batch = model.fine_tuning_batch(
                [prompts[place] for place in places],
                pixels,
                answers=[beam.ids for _, beam in spoken],
                images=places,
            )
            log_probs = answer_log_probs(model.answer_logits(batch), batch.tokens, batch.rows, len(spoken))
        counts = [len(own) for own in sampled]
        rewards = self.rewards.result(jobs)
        has_tokens = np.array([bool(beam.ids) for _, beam in beams], bool)
        weights = np.repeat([1 / (count * len(counts)) for count in counts], counts)[has_tokens]
        advantages = torch.tensor(
            advantages_of(rewards, counts)[has_tokens], dtype=torch.float32, device=log_probs.device
        )
        scaled = torch.tensor(weights, dtype=torch.float32, device=log_probs.device)
        return self_critical_loss(log_probs, advantages, scaled), float(rewards.mean())


def _texts(model: Model, task: Task, sampled: Sequence[Sequence[BeamSample]]) -> list[list[str]]:
    return [[model.clean(task, beam.text) for beam in beams] for beams in sampled]
