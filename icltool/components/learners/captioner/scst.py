"""Self-critical sequence training: beams are samples, the mean of an image's beams is their baseline."""

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
    """ConfigError where there would be nothing to compare a beam with."""
    if data.generation.num_beams < 2:
        raise ConfigError(
            f"scst compares the beams of an image, and num_beams is {data.generation.num_beams}",
            "--option num_beams=5, say",
        )


def advantages_of(rewards: Float64Array, counts: Sequence[int]) -> Float64Array:
    """float64 [sum of counts]: each reward minus the mean over its image's beams. Beams that are all rewarded alike get 0."""
    found = []
    for own in np.split(rewards, np.cumsum(counts)[:-1]):
        found.append(np.zeros_like(own) if np.ptp(own) == 0 else own - own.mean())
    return np.concatenate(found)


class SelfCritical:
    """The loss of a batch, and its mean reward. `rewards` are computed while the gradient's forward pass runs."""

    def __init__(self, data: FineTuningSet, rewards: Rewards) -> None:
        check_beams(data)
        self.data, self.rewards = data, rewards

    def loss(
        self, examples: Sequence[Example], prompts: Sequence[Prompt], pixels: Tensor, sampled: list[list[BeamSample]]
    ) -> tuple[Tensor, float]:
        """(loss, mean reward). `sampled` holds the beams of each prompt; one without tokens counts for the mean and has no
        log-probability of its own."""
        model = tunable_model(self.data)
        references = [example.references for example in examples]
        jobs = self.rewards.submit(_texts(model, self.data.task, sampled), references)
        beams = [(place, beam) for place, found in enumerate(sampled) for beam in found]
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
        counts = [len(found) for found in sampled]
        found = self.rewards.result(jobs)
        kept = np.array([bool(beam.ids) for _, beam in beams], bool)
        weights = np.repeat([1 / (count * len(counts)) for count in counts], counts)[kept]
        advantages = torch.tensor(advantages_of(found, counts)[kept], dtype=torch.float32, device=log_probs.device)
        scaled = torch.tensor(weights, dtype=torch.float32, device=log_probs.device)
        return self_critical_loss(log_probs, advantages, scaled), float(found.mean())


def _texts(model: Model, task: Task, sampled: Sequence[Sequence[BeamSample]]) -> list[list[str]]:
    return [[model.clean(task, beam.text) for beam in found] for found in sampled]
