"""Self-critical training: rewards, advantages, gradients, and processes that compute rewards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from icltool.components.learners.captioner.items import Items
from icltool.components.learners.captioner.module import CaptionerModule
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.learners.captioner.parts import TrainedParts
from icltool.components.learners.captioner.rewards import Rewards
from icltool.components.learners.captioner.scst import SelfCritical, advantages_of
from icltool.contracts import BeamSample, Example, FineTuningSet
from icltool.contracts.options import options_from
from icltool.errors import ConfigError
from icltool.plugin.manager import component
from tests.components.learners.captioner.overlap import Locked, WordOverlap, dying, locked, metric
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set

CORPUS = [("a red bar", "the red bar"), ("a blue frame",), ("a green block", "a block")]
CAPTIONS = [["a red bar", "red", ""], ["a blue frame", "frame"], ["a"], ["x y"], ["a block", "block"]]
REFERENCES = [CORPUS[i % 3] for i in range(5)]


def rewards_of(workers: int, make: Callable[[str], Any] = metric, name: str = "overlap") -> np.ndarray:
    with Rewards(make, name, lambda: CORPUS, workers) as rewards:
        return rewards.result(rewards.submit(CAPTIONS, REFERENCES))


def test_processes_give_the_rewards_that_this_one_gives() -> None:
    plain = WordOverlap()
    plain.fit(CORPUS)
    references = [known for texts, known in zip(CAPTIONS, REFERENCES, strict=True) for _ in texts]
    expected = plain.score([text for texts in CAPTIONS for text in texts], references)
    assert rewards_of(0).tolist() == expected.tolist() == rewards_of(2).tolist()


def test_cider_is_sent_fitted_and_a_metric_that_cannot_be_sent_is_made_in_each_process() -> None:
    make = partial(component, "metrics")
    here, there = rewards_of(0, make, "cider"), rewards_of(1, lambda name: component("metrics", name), "cider")
    assert here.tolist() == there.tolist()
    assert here[0] > here[1] > 0
    assert here[2] == 0
    assert rewards_of(1, locked).tolist() == rewards_of(0).tolist()
    with pytest.raises(ConfigError, match="cannot be sent to other processes"):
        rewards_of(1, lambda name: Locked())


def test_a_process_that_dies_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="a process that computes rewards has died"):
        rewards_of(1, dying)


def test_advantages_are_over_the_mean_of_a_image_s_beams() -> None:
    actual = advantages_of(np.array([1.0, 3.0, 0.1, 0.1, 0.1, 5.0]), [2, 3, 1])
    assert actual.tolist() == [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def critic_of(examples: list[Example]) -> tuple[FineTuningSet, SelfCritical]:
    data = fine_tuning_set(examples)
    return data, SelfCritical(data, Rewards(metric, "overlap", lambda: [e.references for e in examples], 0))


def loss_of(data: FineTuningSet, critic: SelfCritical, sampled: list[list[BeamSample]]) -> tuple[Any, float]:
    model: Any = data.model
    examples = data.examples.rows(range(len(sampled)))
    prompts = [model.prompt("caption", (), example) for example in examples]
    pixels = torch.stack([torch.from_numpy(model.pixel_reader(None)(example.image)) for example in examples])
    return critic.loss(examples, prompts, pixels, sampled)


def test_the_loss_beside_a_plain_twin(examples: list[Example]) -> None:
    """Beam by beam, with `Model.score` for the log-probabilities."""
    data, critic = critic_of(examples)
    model: Any = data.model
    expected, rewards = 0.0, []
    sampled = []
    for example in data.examples.rows(range(3)):
        beams = [BeamSample((*model._ids([text])[0], 1), text, 0.0) for text in (example.label, "a red", "bar")]
        own = critic.rewards.result(critic.rewards.submit([[b.text for b in beams]], [example.references]))
        rewards += own.tolist()
        for beam, reward in zip(beams, own, strict=True):
            prompt = model.plain_prompt("", example.image, beam.text)
            expected -= model.score([prompt], 1)[0].log_prob * (reward - own.mean()) / 3 / 3
        sampled.append(beams)
    loss, reward = loss_of(data, critic, sampled)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert reward == pytest.approx(np.mean(rewards))


def test_empty_and_equal_beams(examples: list[Example]) -> None:
    data, critic = critic_of(examples)
    one = BeamSample((5, 1), "a", 0.0)
    loss, _ = loss_of(data, critic, [[one, one], [one, one]])
    assert float(loss) == 0.0
    loss, _ = loss_of(data, critic, [[one, BeamSample((1,), "", 0.0)], [BeamSample((), "", 0.0), one]])
    assert np.isfinite(float(loss))
    loss, reward = loss_of(data, critic, [[BeamSample((), "", 0.0)] * 2] * 2)
    assert (float(loss), reward) == (0.0, 0.0)


def test_rewarded_captions_become_more_probable(examples: list[Example]) -> None:
    """A step along the gradient raises the mean reward's own estimate: sum(p x advantage) of the sampled beams."""
    data, critic = critic_of(examples)
    model: Any = data.model
    parts = TrainedParts(model.network, model.fine_tuning_parts(), ["vision", "embeddings"])
    items = Items(data.examples, "first", None, 0)
    module = CaptionerModule(
        data, items, parts, options_from("captioner", CaptionerOptions, {"scst": True}), 0, critic=critic
    )
    parts.prepare()
    example = items.examples([0])[0]
    right, wrong = [model.plain_prompt("", example.image, text) for text in (example.label, "zz")]
    before = [model.score([prompt], 1)[0].log_prob for prompt in (right, wrong)]
    sampled = [[BeamSample((*model._ids([p.target])[0],), t, 0.0) for p, t in ((right, example.label), (wrong, "zz"))]]
    for _ in range(3):
        loss, _ = loss_of(data, critic, sampled)
        module.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in parts.trained.values():
                if parameter.grad is not None:
                    parameter -= 0.02 * parameter.grad
    after = [model.score([prompt], 1)[0].log_prob for prompt in (right, wrong)]
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_rewards_from_processes_give_equal_steps(examples: list[Example], tmp_path: Path) -> None:
    files = []
    for workers in (0, 2):
        outcome = fine_tuned(
            fine_tuning_set(examples), tmp_path / str(workers), scst=True, scst_metric="overlap", reward_workers=workers,
            epochs=1
        )  # fmt: skip
        files.append(load_file(outcome.checkpoints["last"]))
        assert outcome.history[0]["train_loss"] == outcome.history[0]["train_scst"]
        assert outcome.history[0]["train_reward"] > 0
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    assert not any("wte" in name for name in files[0])  # the part "embeddings" is frozen
