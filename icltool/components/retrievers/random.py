"""Demonstrations drawn at random."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from icltool.components.retrievers.options import SecondOptions
from icltool.components.retrievers.rows import draw_rows, excluded_rows, given_rows
from icltool.contracts import IndexSet, IntArray, QuerySet, keyed_generator
from icltool.errors import ConfigError, DataError


class RandomOptions(SecondOptions):
    """Whether each query has its own draw."""

    fixed: bool = Field(False, description="use the same demonstrations for all queries")


class RandomRetriever:
    """Uniform without replacement, seeded per query; rows are in the order of their draws. After another method, it draws
    among that method's rows, or shuffles them. With `fixed`, all queries of a call get one set: the first rows, in a random
    order that the seed alone decides, that leak the answer to none of them. Rows that leak for some query are skipped, so
    to that extent (and only with `fixed`) the result depends on the other queries: pass all of them in one call.
    """

    options_model = RandomOptions
    needs: frozenset[str] = frozenset({"among"})
    ranked = False
    nested = True

    def __init__(self, options: RandomOptions) -> None:
        self.options = options

    def pool_size(self, shots: int) -> int:
        """See HasPoolSize."""
        return self.options.pool_size(shots)

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. DataError when too few rows are left."""
        chosen = np.empty((len(queries), shots), dtype=np.int64)
        if among is not None:
            if self.options.fixed:
                raise ConfigError("random: fixed gives one set to all queries, so it cannot follow another method")
            for position, query in enumerate(queries.ids.tolist()):
                rows = given_rows(among, queries, position, shots)
                generator = keyed_generator(seed, "retriever.random", query)
                chosen[position] = rows[draw_rows(generator, len(rows), np.empty(0, np.int64), shots)]
            return chosen
        self.options.check_alone()
        leaking = [excluded_rows(index, queries, position, shots, "query") for position in range(len(queries))]
        if self.options.fixed:
            return np.tile(_one_set(index, leaking, shots, seed), (len(queries), 1))
        for position, rows in enumerate(leaking):
            generator = keyed_generator(seed, "retriever.random", int(queries.ids[position]))
            chosen[position] = draw_rows(generator, len(index), rows, shots)
        return chosen


def _one_set(index: IndexSet, leaking: list[IntArray], shots: int, seed: int) -> IntArray:
    """int64 [shots]: the first rows of a random order that are not among `leaking`."""
    order = keyed_generator(seed, "retriever.random.fixed").permutation(len(index)).astype(np.int64)
    if leaking:
        order = order[~np.isin(order, np.unique(np.concatenate(leaking)))]
    if len(order) < shots:
        raise DataError(
            f"one set of {shots} demonstrations for all queries is needed, but only {len(order)} of the index set's "
            f"{len(index)} rows leak no query's answer",
            "leave out `fixed`, or use a larger index set",
        )
    return order[:shots]
