"""The examples that an intervention learner reads, and the demonstrations in its teacher's prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from icltool.contracts import (
    Example,
    IndexSet,
    IntArray,
    InterventionSet,
    Prompt,
    QuerySet,
    as_query,
    group_code,
    keyed_generator,
    shown,
)
from icltool.errors import DataError


class Draws:
    """Examples drawn from an InterventionSet, and prompts made of them.

    Up to `size` examples are drawn, excluding the rows in `apart`. `rows` int64 [n] are rows of the set in drawn order; the
    methods take positions in it. Draws are keyed by example id, so the same seed draws the same for any number of workers.
    """

    def __init__(self, data: InterventionSet, size: int, seed: int, apart: IntArray | None = None) -> None:
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        self.data, self.seed = data, seed
        # "steering": draws keep the keys of earlier releases, so that results stay the same
        order = keyed_generator(seed, "steering.examples").permutation(len(data.examples)).astype(np.int64)
        if apart is not None:
            order = order[~np.isin(order, apart)]
        self.rows: IntArray = order[:size]
        if not len(self.rows):
            raise DataError("there are no examples to learn from", "use a larger data set, or fewer held-out examples")
        self._index = _part(data.index, self.rows)
        self._queries = self._as_queries(self._index)

    def __len__(self) -> int:
        return len(self.rows)

    def queries(self, positions: Sequence[int] | IntArray) -> list[Example]:
        """The examples at these positions as queries: see `as_query`."""
        return [as_query(example) for example in self.examples(positions)]

    def examples(self, positions: Sequence[int] | IntArray) -> list[Example]:
        """The examples at these positions."""
        return self.data.examples.rows(self.rows[np.asarray(positions, dtype=np.int64)])

    def demonstrations(self, position: int, shots: int, draw: int = 0) -> IntArray:
        """int64 [shots]: positions of the demonstrations of one example, drawn uniformly without replacement.

        Each `draw` is a different set. It never contains the example itself, one of its image or near-duplicates, or one that
        the leak guard excludes. Raises DataError if fewer than `shots` are left.
        """
        leaking = self._index.leaking_rows(self._queries, position)
        left = len(self.rows) - len(leaking)
        if left < shots:
            raise DataError(
                f"shots={shots} needs more demonstrations than there are: only {left} of {len(self.rows)} drawn examples may "
                f"be used for example {int(self._index.ids[position])}",
                "draw more examples (--option max_train_size=…), or use fewer shots",
            )
        generator = keyed_generator(self.seed, f"steering.demonstrations.{draw}", int(self._index.ids[position]))
        chosen = generator.choice(left, shots, replace=False).astype(np.int64)
        # the k-th row that does not leak: every leaking row at or before it shifts it by one
        return chosen + np.searchsorted(leaking - np.arange(len(leaking)), chosen, side="right")

    def plain_prompts(self, positions: Sequence[int] | IntArray) -> list[Prompt]:
        """Prompts without demonstrations, for the student."""
        return [self.data.model.prompt(self.data.task, (), query) for query in self.queries(positions)]

    def prompts(self, positions: Sequence[int] | IntArray, shots: int, draw: int = 0) -> list[Prompt]:
        """Prompts with each example's demonstrations of this draw, for the teacher."""
        rows = [self.demonstrations(int(position), shots, draw) for position in positions]
        demonstrations = iter(self.examples(np.concatenate(rows)) if shots and rows else ())
        return [
            self.data.model.prompt(self.data.task, shown(islice(demonstrations, shots), query), query)
            for query in self.queries(positions)
        ]

    def _as_queries(self, index: IndexSet) -> QuerySet:
        """The drawn examples as queries."""
        contents = None if index.contents is None else index.contents.reshape(len(index), -1)
        queries = QuerySet(
            index.ids, index.image_ids, index.groups, same_split=True, questions=index.questions, contents=contents,
            more_image_ids=index.more_image_ids,
        )  # fmt: skip
        if index.rules is None:
            return queries
        rules = np.array([group_code(query.rule) for query in self.queries(range(len(index)))], dtype=np.int64)
        if contents is not None:
            own = (index.rules == rules[:, None]) & (rules >= 0)[:, None]
            shown = np.where(own, contents[:, 1:], -1).max(axis=1, keepdims=True)
            contents = np.where((rules < 0)[:, None], contents[:, :1], shown)
        return replace(queries, rules=rules, contents=contents)


def held_out(data: InterventionSet, size: int, seed: int) -> Draws:
    """A development split of up to `size` examples, at most half of the set. Training examples should be drawn `apart` from
    its rows."""
    return Draws(data, max(1, min(size, len(data.examples) // 2)), seed + 1)


def _part(index: IndexSet, rows: IntArray) -> IndexSet:
    return replace(index, image=None, text=None, texts=(), images=()).take(rows)
