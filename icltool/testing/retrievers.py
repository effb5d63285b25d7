"""The conformance suite of retrieval methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet, Retriever
from icltool.contracts.arrays import ARRAYS, encoder_of
from icltool.contracts.retriever import HANDED, ChoosesJointly, WantsMore
from icltool.errors import ConfigError, IclError
from icltool.testing.abilities import expect_choosing_abilities
from icltool.testing.arrays import make_anchors, make_index, make_queries, take
from icltool.testing.expectations import built, expect, expect_equal, expect_error, expect_needs
from icltool.testing.selection import check_independence, check_repeats, check_rows
from icltool.testing.sessions import InMemoryChoosingSession, InMemoryExamples

#: Labels that queries have in the place of their own, which no method may make use of.
_POISON = ("poison", "venom red")
#: So many queries are asked together where a method asks the model.
_CHUNK = 7


def check_retriever(
    retriever: Retriever | Callable[[], Retriever], *, shots: Sequence[int] = (1, 2, 5), index: IndexSet | None = None
) -> None:
    """Checks a retrieval method, or a class or factory that makes one, against `icltool.Retriever`.

    `shots` are the numbers of demonstrations that it serves ((0,) for one that gives none). `index` is the index set to
    use where the method is tied to one (a trained selector); its arrays must hold what the method needs. Checked are:
    `needs`, `ranked` and `nested`, and what else it may have; shape, dtype, distinct rows, no leaks, for queries of
    another split and of the same one; the same rows whatever the other queries and their order (of one that chooses jointly:
    the same rows twice); `nested` where it is claimed; an IclError for more shots than there are rows.

    Of one that lists "among": rows of those that it was given and no others, and an IclError where these are too few; alone,
    too, unless it raises ConfigError then. Of one that lists "model": the same rows in chunks of 1 and of 7; of one that
    lists "examples": the same rows whatever is written where queries of other kinds have their labels.
    Raises AssertionError that says what is wrong.
    """
    checked = _Checked(retriever, index)
    picked = np.random.default_rng(3).permutation(len(checked.index))[:20]
    for queries in (make_queries(checked.index, picked), make_anchors(checked.index, picked)):
        if checked.runs_alone(queries, min(shots)):
            checked.check(queries, shots, arranging=False)
        if "among" in checked.needs:
            checked.check(queries, shots, arranging=True)
            checked.check_too_few(queries, max(shots))
    empty, one = make_queries(checked.index, []), make_queries(checked.index, picked[:1])
    arranging = not checked.runs_alone(one, min(shots))
    check_rows(checked.choose(empty, max(shots), arranging), checked.index, empty, max(shots), "demonstrations")
    if not arranging:
        more = len(checked.index) + 1
        sentence = "more shots than the index set has rows is an IclError"
        expect_error(IclError, lambda: checked.choose(one, more, arranging), sentence)


class _Checked:
    """The method, and how it is asked."""

    def __init__(self, retriever: Retriever | Callable[[], Retriever], index: IndexSet | None) -> None:
        self._retriever = retriever
        first = built(retriever, "retrieve")
        self.needs = expect_needs(first, frozenset({*ARRAYS, *HANDED, *filter(encoder_of, first.needs)}))
        for name in ("ranked", "nested"):
            value = getattr(first, name, None)
            expect(isinstance(value, bool), f"`{name}` must be True or False, not {value!r}")
        expect_choosing_abilities(first)
        _expect_arguments(first)
        self.nested, self._first = first.nested, first
        self.joint = isinstance(first, ChoosesJointly) and first.joint
        self.index = make_index(needs=self.needs) if index is None else index

    def choose(
        self, queries: QuerySet, shots: int, arranging: bool, *, among: IntArray | None = None, poison: str = _POISON[0]
    ) -> IntArray:
        """The answer of a new method, or of the one that was given. With `arranging` it is given rows."""
        method = built(self._retriever, "retrieve")
        examples = InMemoryExamples(self.index, queries, poison)
        session = InMemoryChoosingSession(examples.index(np.arange(len(self.index))), self.needs, poison)
        if arranging and among is None:
            among = self.given(queries, shots)
        handed = {"among": among, "examples": examples, "model": session}
        keywords: dict[str, Any] = {HANDED[need]: handed[need] for need in sorted(self.needs & set(HANDED))}
        chosen: IntArray = method.retrieve(self.index, queries, shots, 11, **keywords)
        return chosen

    def given(self, queries: QuerySet, shots: int) -> IntArray:
        """`among` int64 [Q, P] for the queries, drawn by their ids: as many rows as the method wants, or some fewer."""
        wanted = self._first.wants(shots) if isinstance(self._first, WantsMore) else shots
        among = np.full((len(queries), wanted), -1, dtype=np.int64)
        for position, query in enumerate(queries.ids.tolist()):
            allowed = np.setdiff1d(np.arange(len(self.index)), self.index.leaking_rows(queries, position))
            count = max(shots, min(wanted - query % 3, len(allowed)))
            among[position, :count] = np.random.default_rng(query).permutation(allowed)[:count]
        return among

    def runs_alone(self, queries: QuerySet, shots: int) -> bool:
        """Whether it can choose without being given rows."""
        if "among" not in self.needs:
            return True
        try:
            self.choose(queries, shots, False)
        except ConfigError:
            return False
        return True

    def check(self, queries: QuerySet, shots: Sequence[int], arranging: bool) -> None:
        for number in shots:
            chosen = self.choose(queries, number, arranging)
            check_rows(chosen, self.index, queries, number, "demonstrations")
            if arranging:
                _check_subset(chosen, self.given(queries, number), queries)
        self._check_repeated(queries, max(shots), arranging)
        if self.nested:
            among = self.given(queries, max(shots)) if arranging else None
            longest = self.choose(queries, max(shots), arranging, among=among)
            for number in shots:
                sentence = f"`nested` is claimed, but {number} shots are not the first columns of {max(shots)}"
                expect_equal(self.choose(queries, number, arranging, among=among), longest[:, :number], sentence)

    def _check_repeated(self, queries: QuerySet, shots: int, arranging: bool) -> None:
        def choose(asked: QuerySet) -> IntArray:
            return self.choose(asked, shots, arranging)

        if self.joint:
            check_repeats(choose, queries, "demonstrations")
        else:
            check_independence(choose, queries, "demonstrations")
        whole = choose(queries)
        if "model" in self.needs and not self.joint:
            chunks = [np.arange(low, min(low + _CHUNK, len(queries))) for low in range(0, len(queries), _CHUNK)]
            found = np.concatenate([choose(take(queries, chunk)) for chunk in chunks])
            expect_equal(
                found, whole, f"demonstrations in chunks of {_CHUNK} queries differ from those of all together"
            )
        for poison in ("", *_POISON[1:]) if "examples" in self.needs else ():
            other = self.choose(queries, shots, arranging, poison=poison)
            expect_equal(other, whole, "demonstrations depend on what stands in the place of the queries' labels")

    def check_too_few(self, queries: QuerySet, shots: int) -> None:
        few = self.given(queries, shots)[:, : shots - 1]
        sentence = f"{shots - 1} rows to choose {shots} from is an IclError"
        expect_error(IclError, lambda: self.choose(queries, shots, True, among=few), sentence)


def _check_subset(chosen: IntArray, among: IntArray, queries: QuerySet) -> None:
    for position, rows in enumerate(chosen):
        others = np.setdiff1d(rows, among[position]).tolist()
        query = queries.ids[position]
        expect(not others, f"rows {others} of query {query} are not among those that the method was given as `among`")


def _expect_arguments(retriever: Any) -> None:
    """`retrieve` takes as keyword arguments what `needs` names, and nothing that is handed only to those that name it."""
    parameters = inspect.signature(retriever.retrieve).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for need, name in HANDED.items():
        takes = name in parameters or open_ended
        expect(
            need not in retriever.needs or takes, f"`needs` names {need!r}, but `retrieve` takes no argument `{name}`"
        )
        expect(
            need in retriever.needs or name not in parameters,
            f"`retrieve` takes `{name}`, which is never handed over: `needs` does not name {need!r}",
        )
