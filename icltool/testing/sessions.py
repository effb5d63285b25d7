"""A scoring session without a model: what it answers is made up, but always the same for the same request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from icltool.contracts import Example, FloatArray, ScoringRequest, TargetScore, Task, task_name
from icltool.testing.expectations import expect


class InMemorySession:
    """`icltool.ScoringSession` for tests of scorers.

    `examples` are the index set. `needs` is what the scorer under test asked for: anything else is refused with an
    AssertionError, as a real session could not give it either. The log-probability of a target is a number between -6
    and 0 per word, fixed by the query and its demonstrations in their order; an answer holds those words of the
    query's label that the demonstrations' labels show, and one word that is wrong; features are `dim` normal numbers
    per example. `asked` counts the requests that went to the "model".
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        task: Task | str = "caption",
        needs: frozenset[str] = frozenset({"model", "image", "text"}),
        dim: int = 8,
        seed: int = 0,
    ) -> None:
        self.task: Task | str = task
        self.examples = tuple(examples)
        self.needs = needs
        self.dim = dim
        self.seed = seed
        self.asked = 0

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        self._count(requests)
        scores = []
        for request in requests:
            tokens = len(request.query.label.split()) + 1
            key = [request.query.id, request.query.label, *(d.id for d in request.demonstrations)]
            scores.append(TargetScore(float(-6 * tokens * self._numbers(key).random()), tokens))
        return scores

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        self._count(requests)
        answers = []
        for request in requests:
            shown = {word for d in request.demonstrations for word in d.label.split()}
            words = [word for word in request.query.label.split() if word in shown]
            answers.append(" ".join([*words, "thing"]))
        return answers

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        expect(kind in ("image", "text"), f"features of kind {kind!r} do not exist; ask for 'image' or 'text'")
        expect(kind in self.needs, f"the scorer asks for {kind!r} features, but its `needs` do not name them")
        known = {example.id for example in self.examples}
        for example in examples:
            expect(
                example.id in known, f"features of example {example.id} were asked for, which is not in the index set"
            )
        vectors = [self._numbers([kind, example.id]).standard_normal(self.dim) for example in examples]
        return np.array(vectors, dtype=np.float32).reshape(len(examples), self.dim)

    def reference_corpus(self) -> Iterable[tuple[str, ...]]:
        return (example.references for example in self.examples)

    def _count(self, requests: Sequence[ScoringRequest]) -> None:
        expect("model" in self.needs, "the scorer asks the model, but its `needs` do not name 'model'")
        self.asked += len(requests)

    def _numbers(self, key: Sequence[object]) -> np.random.Generator:
        text = "\x00".join(str(part) for part in (self.seed, task_name(self.task), *key))
        return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))
