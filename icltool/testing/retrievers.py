"""The conformance suite of retrievers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet, Retriever
from icltool.contracts.arrays import ARRAYS, encoder_of
from icltool.contracts.retriever import HANDED, ChoosesJointly, HasPoolSize, HasShotSize
from icltool.errors import ConfigError, IclError
from icltool.testing.abilities import expect_choosing_abilities
from icltool.testing.arrays import make_anchors, make_index, make_queries, take
from icltool.testing.expectations import built, expect, expect_equal, expect_error, expect_needs
from icltool.testing.selection import check_independence, check_repeats, check_rows
from icltool.testing.sessions import InMemoryChoosingSession, InMemoryExamples

#: Labels that replace the queries' own, which no retriever may use.
_POISON = ("poison", "venom red")
#: Number of queries in a chunk for retrievers that ask the model.
_CHUNK = 7


def check_retriever(
    retriever: Retriever | Callable[[], Retriever], *, shots: Sequence[int] = (1, 2, 5), index: IndexSet | None = None
) -> None:
    """Checks a retriever, or a class or factory that makes one, against `icltool.Retriever`.

    `shots` are the supported numbers of shots ((0,) for a retriever that chooses none), each of one demonstration, or of as
    many as a retriever with HasShotSize says. `index` is the index set for
    a retriever that is tied to one (a trained selector); its arrays must be those that the retriever needs. Checks `needs`,
    `ranked`, `nested` and optional abilities; shape, dtype, distinct rows and absence of leaks, for queries of another split
    and of the same one; that rows depend neither on the other queries nor on their order (for a retriever that chooses
    jointly: that repeated calls agree); `nested` if it is claimed; an IclError for more shots than rows.

    A retriever that lists "among" must choose from the rows in `among`, and raise an IclError if these are too few; it must
    also work without them or raise ConfigError. One that lists "model" must choose the same rows in chunks of 1 and of 7
    queries; one that lists "examples", the same rows whatever the queries' labels. Raises AssertionError with a description
    of the fault.
    """
    checked = _Checked(retriever, index)
    shots = [number * checked.shot_size for number in shots]
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
        more = (len(checked.index) // checked.shot_size + 1) * checked.shot_size
        sentence = "more shots than the index set has rows is an IclError"
        expect_error(IclError, lambda: checked.choose(one, more, arranging), sentence)


class _Checked:
    """The retriever, and how it is called."""

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
        self.shot_size = first.shot_size if isinstance(first, HasShotSize) else 1
        self.joint = isinstance(first, ChoosesJointly) and first.joint
        self.index = make_index(needs=self.needs) if index is None else index

    def choose(
        self, queries: QuerySet, shots: int, arranging: bool, *, among: IntArray | None = None, poison: str = _POISON[0]
    ) -> IntArray:
        """The rows chosen by a new retriever, or by the one under test. With `arranging` it gets `among`."""
        method = built(self._retriever, "retrieve")
        examples = InMemoryExamples(self.index, queries, poison)
        session = InMemoryChoosingSession(examples.index(np.arange(len(self.index))), self.needs, poison)
        if arranging and among is None:
            among = self.among_rows(queries, shots)
        handed = {"among": among, "examples": examples, "model": session}
        keywords: dict[str, Any] = {HANDED[need]: handed[need] for need in sorted(self.needs & set(HANDED))}
        chosen: IntArray = method.retrieve(self.index, queries, shots, 11, **keywords)
        return chosen

    def among_rows(self, queries: QuerySet, shots: int) -> IntArray:
        """`among` int64 [Q, P] for the queries, drawn by their ids: as many as its pool size, or slightly fewer."""
        expected = self._first.pool_size(shots) if isinstance(self._first, HasPoolSize) else shots
        among = np.full((len(queries), expected), -1, dtype=np.int64)
        for position, query in enumerate(queries.ids.tolist()):
            allowed = np.setdiff1d(np.arange(len(self.index)), self.index.leaking_rows(queries, position))
            count = max(shots, min(expected - query % 3, len(allowed)))
            among[position, :count] = np.random.default_rng(query).permutation(allowed)[:count]
        return among

    def runs_alone(self, queries: QuerySet, shots: int) -> bool:
        """Whether it can choose without `among`."""
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
                _check_subset(chosen, self.among_rows(queries, number), queries)
        self._check_repeated(queries, max(shots), arranging)
        if self.nested:
            among = self.among_rows(queries, max(shots)) if arranging else None
            longest = self.choose(queries, max(shots), arranging, among=among)
            for number in shots:
                sentence = f"`nested` is claimed, but {number} shots are not the first columns of {max(shots)}"
                expect_equal(self.choose(queries, number, arranging, among=among), longest[:, :number], sentence)

    def _check_repeated(self, queries: QuerySet, shots: int, arranging: bool) -> None:
        def choose(some_queries: QuerySet) -> IntArray:
            return self.choose(some_queries, shots, arranging)

        if self.joint:
            check_repeats(choose, queries, "demonstrations")
        else:
            check_independence(choose, queries, "demonstrations")
        whole = choose(queries)
        if "model" in self.needs and not self.joint:
            chunks = [np.arange(low, min(low + _CHUNK, len(queries))) for low in range(0, len(queries), _CHUNK)]
            actual = np.concatenate([choose(take(queries, chunk)) for chunk in chunks])
            expect_equal(
                actual, whole, f"demonstrations in chunks of {_CHUNK} queries differ from those of all together"
            )
        for poison in ("", *_POISON[1:]) if "examples" in self.needs else ():
            other = self.choose(queries, shots, arranging, poison=poison)
            expect_equal(other, whole, "demonstrations depend on the queries' labels")

    def check_too_few(self, queries: QuerySet, shots: int) -> None:
        few = self.among_rows(queries, shots)[:, : shots - 1]
        sentence = f"{shots - 1} rows to choose {shots} from is an IclError"
        expect_error(IclError, lambda: self.choose(queries, shots, True, among=few), sentence)


def _check_subset(chosen: IntArray, among: IntArray, queries: QuerySet) -> None:
    for position, rows in enumerate(chosen):
        others = np.setdiff1d(rows, among[position]).tolist()
        query = queries.ids[position]
        expect(not others, f"rows {others} of query {query} are not among those in `among`")


def _expect_arguments(retriever: Any) -> None:
    """Checks that `retrieve` takes the keyword arguments that `needs` names, and no others that depend on `needs`."""
    parameters = inspect.signature(retriever.retrieve).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for need, name in HANDED.items():
        takes = name in parameters or open_ended
        expect(
            need not in retriever.needs or takes, f"`needs` names {need!r}, but `retrieve` takes no argument `{name}`"
        )
        expect(
            need in retriever.needs or name not in parameters,
            f"`retrieve` takes `{name}`, which is never passed: `needs` does not name {need!r}",
        )
