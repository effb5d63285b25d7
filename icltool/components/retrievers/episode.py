"""Demonstrations of an episode: the query's own class, and others."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from icltool.components.retrievers.rows import draw_rows
from icltool.contracts import IndexSet, IntArray, Options, QuerySet, keyed_generator
from icltool.errors import ConfigError, DataError

_NONE = np.empty(0, dtype=np.int64)


class EpisodeOptions(Options):
    """How many classes are shown."""

    ways: int = Field(2, ge=2, description="classes to show: the query's own and others of its support set")


class EpisodeRetriever:
    """For data sets with a support set per query (VL-ICL's fast open-ended tasks): examples of the query's own class and of
    `ways` - 1 other classes of its support set, drawn by seed and alternating; the order of the classes is drawn as well.

    The method knows the query's class, as the benchmark has it: a guess among the classes shown is right once in `ways`. The
    number of shots is that of the examples of each class, so a prompt shows `ways` times as many.
    """

    options_model = EpisodeOptions
    needs: frozenset[str] = frozenset({"labels"})
    ranked = False
    nested = False

    def __init__(self, options: EpisodeOptions) -> None:
        self.options = options

    @property
    def shot_size(self) -> int:
        """See HasShotSize."""
        return self.options.ways

    @property
    def remarks(self) -> tuple[str, ...]:
        """See HasRemarks."""
        ways = self.options.ways
        return (
            f"episode: shows the query's own class by design; a guess among the classes shown is {100 / ways:.0f} % right",
            f"episode: a shot is an example of each of {ways} classes",
        )

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots], a multiple of `ways`; see `icltool.contracts.Retriever`. Raises ConfigError for
        another number, and for a data set without support sets; DataError for a support set that is too small."""
        if shots % self.options.ways:
            raise ConfigError(
                f"episode shows as many examples of each of {self.options.ways} classes, so {shots} cannot be divided",
                f"ask for {max(1, shots // self.options.ways) * self.options.ways}, or for another number of ways",
            )
        if queries.support is None:
            raise ConfigError("episode needs a data set with a support set for each query", "choose --method random")
        chosen = np.empty((len(queries), shots), dtype=np.int64)
        for position in range(len(queries) if shots else 0):
            chosen[position] = self._episode(index, queries, position, shots // self.options.ways, seed)
        return chosen

    def _episode(self, index: IndexSet, queries: QuerySet, position: int, each: int, seed: int) -> IntArray:
        """int64 [ways * each]: `each` rows of each class."""
        support = queries.support_of(position)
        allowed = np.ones(len(index), dtype=np.bool_)
        allowed[index.leaking_rows(queries, position)] = False  # what is outside the support set, too
        by_class: dict[str, list[int]] = {}
        for row in np.flatnonzero(allowed).tolist():
            by_class.setdefault(index.labels[row], []).append(row)
        # a support set begins with the examples of the query's own class (see Example)
        first = np.flatnonzero(index.ids == support[0]).tolist() if len(support) else []
        own = index.labels[first[0]] if first else None
        enough = [name for name in sorted(by_class) if len(by_class[name]) >= each]
        query = int(queries.ids[position])
        if own not in enough or len(enough) < self.options.ways:
            raise DataError(
                f"query {query}: its support set does not hold {each} of each of {self.options.ways} classes, its own among "
                "them",
                "lower --shots, or ways",
            )
        generator = keyed_generator(seed, "retriever.episode", query)
        others = [name for name in enough if name != own]
        drawn = draw_rows(generator, len(others), _NONE, self.options.ways - 1).tolist()
        names = [own, *(others[place] for place in drawn)]
        picked = [
            np.array(by_class[name], dtype=np.int64)[draw_rows(generator, len(by_class[name]), _NONE, each)]
            for name in names
        ]
        order = generator.permutation(len(names))
        alternating: IntArray = np.stack([picked[place] for place in order], axis=1).reshape(-1)
        return alternating
