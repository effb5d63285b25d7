"""A scoring session without a model, whose made-up answers are always the same for the same request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from icltool.contracts import (
    Example,
    FloatArray,
    IndexSet,
    IntArray,
    QuerySet,
    ScoringRequest,
    TargetScore,
    Task,
    task_name,
)
from icltool.testing.arrays import made_label
from icltool.testing.expectations import expect


class InMemorySession:
    """`icltool.ScoringSession` for tests of scorers.

    `examples` are the index set. `needs` are those of the scorer under test: anything else is an AssertionError, since a real
    session could not provide it either. The log-probability of a target is a number between -6 and 0 per word, determined by
    the query and its demonstrations in order; an answer contains the words of the query's label that occur in the
    demonstrations' labels, and one wrong word; features are `dim` normal numbers per example. `requests` counts those sent to
    the "model".
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
        self.requests = 0

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
            known_words = {word for d in request.demonstrations for word in d.label.split()}
            words = [word for word in request.query.label.split() if word in known_words]
            answers.append(" ".join([*words, "thing"]))
        return answers

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        expect(kind in ("image", "text"), f"features of kind {kind!r} do not exist; ask for 'image' or 'text'")
        expect(kind in self.needs, f"the scorer asks for {kind!r} features, but its `needs` do not name them")
        known = {example.id for example in self.examples}
        for example in examples:
            expect(
                example.id in known, f"the scorer reads features of example {example.id}, which is not in the index set"
            )
        vectors = [self._numbers([kind, example.id]).standard_normal(self.dim) for example in examples]
        return np.array(vectors, dtype=np.float32).reshape(len(examples), self.dim)

    def reference_corpus(self) -> Iterable[tuple[str, ...]]:
        return (example.references for example in self.examples)

    def _count(self, requests: Sequence[ScoringRequest]) -> None:
        expect("model" in self.needs, "it asks the model, but its `needs` do not name 'model'")
        self.requests += len(requests)

    def _numbers(self, key: Sequence[object]) -> np.random.Generator:
        text = "\x00".join(str(part) for part in (self.seed, task_name(self.task), *key))
        return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


@dataclass(frozen=True)
class InMemoryExamples:
    """`icltool.RetrievalExamples` of made-up arrays: every example has a question and the same `choices`. Queries have
    `label` as their label and reference, which no retriever may use."""

    arrays: IndexSet
    query_arrays: QuerySet
    label: str = ""
    choices: tuple[str, ...] = ("red", "round", "dog")

    def index(self, rows: IntArray) -> list[Example]:
        return [self._example(self.arrays, row, made_label(int(self.arrays.ids[row]))) for row in rows.tolist()]

    def queries(self, positions: IntArray) -> list[Example]:
        return [self._example(self.query_arrays, position, self.label) for position in positions.tolist()]

    def _example(self, arrays: IndexSet | QuerySet, row: int, label: str) -> Example:
        image, text = int(arrays.image_ids[row]), f"what is in {int(arrays.image_ids[row])}?"
        references = (label,) if label else ()
        actual = Example(int(arrays.ids[row]), f"/images/{image}.png", image, text, label, references, text)
        return replace(actual, choices=self.choices)


class InMemoryChoosingSession(InMemorySession):
    """`icltool.ChoosingSession` for tests of retrievers. A request for the probability of the label `poison`, which is the
    query's own, is an AssertionError."""

    def __init__(self, examples: Sequence[Example], needs: frozenset[str], poison: str, seed: int = 0) -> None:
        super().__init__(examples, task="vqa", needs=needs, seed=seed)
        self._poison = poison

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        for request in requests:
            expect(
                request.query.label and request.query.label != self._poison,
                "target_scores was called with the query's own label, which retrievers must not use: set another one",
            )
        return super().target_scores(requests)

    def choices(self, requests: Sequence[ScoringRequest]) -> list[dict[str, float]]:
        actual = []
        for request in requests:
            with_choices = [
                replace(request, query=replace(request.query, label=choice)) for choice in request.query.choices
            ]
            scores = super().target_scores(with_choices)
            actual.append({choice: score.mean for choice, score in zip(request.query.choices, scores, strict=True)})
        return actual

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        relabelled = [replace(request, query=replace(request.query, label="red round dog")) for request in requests]
        return super().answers(relabelled)
