"""A model's results for single prompts, with which those of batches, image features and prefix caches are compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from icltool.contracts import Features, GenerationOptions, Model, Prompt, TargetScore
from icltool.testing.expectations import expect


class PromptsAlone:
    """Scores and answers of prompts that are read one by one in the model's present state, from the images or from `features`.
    Each is computed once."""

    def __init__(self, model: Model, features: Features = None) -> None:
        self._model = model
        self._features = () if features is None else (features,)
        self._scores: dict[Prompt, TargetScore] = {}
        self._answers: dict[tuple[Prompt, GenerationOptions], str] = {}

    def scores(self, prompts: Sequence[Prompt]) -> list[TargetScore]:
        for prompt in prompts:
            if prompt not in self._scores:
                [self._scores[prompt]] = valid_scores(self._model.score([prompt], 1, *self._features), 1)
        return [self._scores[prompt] for prompt in prompts]

    def log_probs(self, prompts: Sequence[Prompt]) -> list[float]:
        return [score.log_prob for score in self.scores(prompts)]

    def answers(self, prompts: Sequence[Prompt], options: GenerationOptions) -> list[str]:
        for prompt in prompts:
            if (prompt, options) not in self._answers:
                actual = self._model.generate([prompt], options, 1, *self._features)
                expect(len(actual) == 1, f"`generate` of one prompt gives {len(actual)} answers")
                [self._answers[prompt, options]] = actual
        return [self._answers[prompt, options] for prompt in prompts]


def valid_scores(scores: Sequence[TargetScore], count: int) -> list[TargetScore]:
    """The scores after checking that they are valid scores of `count` prompts."""
    expect(len(scores) == count, f"`score` of {count} prompts gives {len(scores)} scores")
    for score in scores:
        expect(isinstance(score, TargetScore), f"`score` must give TargetScore objects, not {type(score).__name__}")
        expect(
            isinstance(score.tokens, int) and score.tokens > 0,
            f"a target has a positive number of tokens, not {score.tokens!r}",
        )
        fits = math.isfinite(score.log_prob) and score.log_prob <= 0
        expect(fits, f"a summed log-probability is finite and not above 0, not {score.log_prob}")
    return list(scores)
