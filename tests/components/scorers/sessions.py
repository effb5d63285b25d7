"""A session whose "model" repeats the caption of the demonstration next to the query: enough to know what to expect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from icltool.contracts import Example, FloatArray, ScoringRequest, TargetScore


class CopyingSession:
    """Answers with the last demonstration's label, with nothing where there is none. Counts what it is asked."""

    def __init__(self, task: str, corpus: Sequence[tuple[str, ...]]) -> None:
        self.task = task
        self.corpus = corpus
        self.read = 0

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        raise AssertionError("a scorer of generated answers needs no target scores")

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        return [request.demonstrations[-1].label if request.demonstrations else "" for request in requests]

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        raise AssertionError("a scorer of generated answers needs no embeddings")

    def reference_corpus(self) -> Iterable[tuple[str, ...]]:
        self.read += 1
        return iter(self.corpus)


def example(id: int, *references: str) -> Example:
    return Example(id=id, image="", image_id=id, text="", label=references[0], references=references)
