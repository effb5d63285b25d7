"""Retrieval methods that ask the model, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from icltool.contracts import ChoosingSession, IndexSet, IntArray, QuerySet, RetrievalExamples, ScoringRequest
from icltool.errors import ConfigError
from icltool.plugin.manager import load_registry
from icltool.plugin.registration import Registration
from icltool.plugin.registry import RegisteredComponent


class Surest:
    """Of four times as many rows those whose label the model finds likeliest after nothing but themselves."""

    needs: frozenset[str] = frozenset({"among", "examples", "model"})
    ranked, nested = False, False

    def pool_size(self, shots: int) -> int:
        return 4 * shots

    def retrieve(
        self,
        index: IndexSet,
        queries: QuerySet,
        shots: int,
        seed: int,
        *,
        among: IntArray | None = None,
        examples: RetrievalExamples,
        session: ChoosingSession,
    ) -> IntArray:
        if among is None:
            raise ConfigError("surest chooses among the rows of another method", "--method random+surest")
        requests = [
            ScoringRequest(replace(query, label=example.label), (example,))
            for query, rows in zip(examples.queries(np.arange(len(queries))), among, strict=True)
            for example in examples.index(rows)
        ]
        means = np.array([score.mean for score in session.target_scores(requests)]).reshape(among.shape)
        return np.take_along_axis(among, self.order(means)[:, :shots], axis=1)

    def order(self, means: np.ndarray) -> np.ndarray:
        """Places from the best to the worst."""
        return (-means).argsort(axis=1, kind="stable")


class OddOnes(Surest):
    """Those that are least like the mean of all that is asked."""

    joint = True

    def order(self, means: np.ndarray) -> np.ndarray:
        return (-np.abs(means - means.mean())).argsort(axis=1, kind="stable")


@contextmanager
def registered() -> Iterator[None]:
    """Within it both are methods."""
    with pytest.MonkeyPatch.context() as patch:
        for name, cls in (("surest", "Surest"), ("odd-ones", "OddOnes")):
            registration = Registration(name, f"tests.commands.evaluate.asking:{cls}", "from a test")
            components = [RegisteredComponent("retrievers", registration, "tests", "1.0")]
            patch.setitem(load_registry()._by_name, ("retrievers", name), components)
        yield
