"""Which examples a learner of interventions reads, and which demonstrations its teacher sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from icltool.contracts import Example, IndexSet, IntArray, InterventionSet, Prompt, QuerySet, keyed_generator
from icltool.errors import DataError


class Draws:
    """Examples drawn from a InterventionSet, and prompts made of them.

    Up to `size` examples are drawn, apart from `apart` (rows of the set that must not be among them). `rows` int64 [n] are
    rows of the set, in drawn order; positions in it are what all methods take. The same seed draws the same for any number
    of workers: draws are keyed by example id.
    """

    def __init__(self, data: InterventionSet, size: int, seed: int, apart: IntArray | None = None) -> None:
        if size < 1:
            raise ValueError(f"a draw of {size} examples")
        self.data, self.seed = data, seed
        order = keyed_generator(seed, "steering.examples").permutation(len(data.examples)).astype(np.int64)
        if apart is not None:
            order = order[~np.isin(order, apart)]
        self.rows: IntArray = order[:size]
        if not len(self.rows):
            raise DataError("there are no examples to learn from", "use a larger data set, or fewer held-out examples")
        self._index = _part(data.index, self.rows)
        self._queries = QuerySet(
            self._index.ids, self._index.image_ids, self._index.groups, same_split=True, questions=self._index.questions,
            contents=None if self._index.contents is None else self._index.contents[:, None],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    def examples(self, positions: Sequence[int] | IntArray) -> list[Example]:
        """The examples at these positions."""
        return self.data.examples.rows(self.rows[np.asarray(positions, dtype=np.int64)])

    def demonstrations(self, position: int, shots: int, draw: int = 0) -> IntArray:
        """int64 [shots]: positions of the demonstrations of one example, drawn uniformly without replacement.

        Another `draw` is another set. Never the example itself, one of its image or near-duplicates, or one that the leak
        guard keeps from it. Raises DataError when fewer than `shots` are left.
        """
        leaking = self._index.leaking_rows(self._queries, position)
        left = len(self.rows) - len(leaking)
        if left < shots:
            raise DataError(
                f"{shots} shots were asked for, but only {left} of {len(self.rows)} drawn examples may stand before example "
                f"{int(self._index.ids[position])}",
                "draw more examples (--option max_train_size=…), or use fewer shots",
            )
        generator = keyed_generator(self.seed, f"steering.demonstrations.{draw}", int(self._index.ids[position]))
        chosen = generator.choice(left, shots, replace=False).astype(np.int64)
        # the k-th row that does not leak: every leaking row at or before it moves it on by one
        return chosen + np.searchsorted(leaking - np.arange(len(leaking)), chosen, side="right")

    def plain_prompts(self, positions: Sequence[int] | IntArray) -> list[Prompt]:
        """Prompts without demonstrations: what the student reads."""
        return [self.data.model.prompt(self.data.task, (), example) for example in self.examples(positions)]

    def prompts(self, positions: Sequence[int] | IntArray, shots: int, draw: int = 0) -> list[Prompt]:
        """Prompts with each example's demonstrations of this draw: what the teacher reads."""
        found = [self.demonstrations(int(position), shots, draw) for position in positions]
        queries = self.examples(positions)
        shown = iter(self.examples(np.concatenate(found)) if shots and found else ())
        return [self.data.model.prompt(self.data.task, [next(shown) for _ in range(shots)], query) for query in queries]


def held_out(data: InterventionSet, size: int, seed: int) -> Draws:
    """Up to `size` examples of a development split, at most half of the set: a Draws of their own. What is learned from
    should be drawn `apart` from its rows."""
    return Draws(data, max(1, min(size, len(data.examples) // 2)), seed + 1)


def _part(index: IndexSet, rows: IntArray) -> IndexSet:
    return replace(index, image=None, text=None, texts=(), images=()).take(rows)
