"""Metrics that need no Java, in a module that is light: processes that compute rewards import it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np


class WordOverlap:
    """A Metric without Java: the share of the references' words that an answer has, most of any reference."""

    name, scale = "overlap", 100.0

    def fit(self, corpus: Any) -> None:
        """Counts the words of the references; rare ones weigh more."""
        self.counts: dict[str, int] = {}
        for texts in corpus:
            for word in {word for text in texts for word in text.split()}:
                self.counts[word] = self.counts.get(word, 0) + 1

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([self._one(text, known) for text, known in zip(predictions, references, strict=True)])

    def _one(self, text: str, known: Sequence[str]) -> float:
        counts, actual = getattr(self, "counts", {}), set(text.split())
        weigh = {word: 1 / counts.get(word, 1) for reference in known for word in reference.split()}
        return sum(weight for word, weight in weigh.items() if word in actual) + 0.01 * len(actual)


class Locked(WordOverlap):
    """A metric that holds what no other process can have."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def locked(name: str) -> Locked:
    return Locked()


class Dying(WordOverlap):
    """A metric whose process ends."""

    def score(self, predictions: Any, references: Any) -> np.ndarray:
        os._exit(1)


def dying(name: str) -> Dying:
    return Dying()


def metric(name: str) -> Any:
    """What a FineTuningSet builds metrics with."""
    if name == "overlap":
        return WordOverlap()
    from icltool.plugin.manager import component

    return component("metrics", name)
