"""Chooses demonstrations by one retriever, or by several, each of which chooses among the rows of the previous one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from icltool.contracts import (
    ChoosingSession,
    Example,
    FloatArray,
    IndexSet,
    IntArray,
    QuerySet,
    RetrievalExamples,
    Retriever,
    ScoringRequest,
    TargetScore,
)
from icltool.contracts.arrays import ARRAYS, encoder_of, is_array
from icltool.contracts.retriever import HANDED, ChoosesJointly, HasPoolSize, HasShotSize
from icltool.engine.choices import rank_choices
from icltool.engine.demonstrations import checked_rows
from icltool.engine.session import Session
from icltool.errors import ConfigError, PluginError

#: Separators between the names of chained retrievers; both are read, the first is written.
THEN, ALSO_THEN = "+", ">"
#: Between a retriever and the encoder whose embeddings it reads.
BY = "@"


@dataclass(frozen=True)
class Part:
    """A retriever, and its name in messages."""

    name: str
    retriever: Retriever

    @property
    def needs(self) -> frozenset[str]:
        """The arrays that the retriever reads."""
        return frozenset(need for need in self.retriever.needs if is_array(need))


@dataclass(frozen=True)
class Handed:
    """The inputs of a retriever besides arrays; None for those that are not available."""

    among: IntArray | None = None
    examples: RetrievalExamples | None = None
    session: ChoosingSession | None = None

    def take(self, positions: IntArray) -> Handed:
        """The inputs for the queries at `positions`."""
        among = None if self.among is None else self.among[positions]
        examples = None if self.examples is None else _SomeExamples(self.examples, positions)
        return Handed(among, examples, self.session)


@dataclass(frozen=True)
class _SomeExamples:
    """The RetrievalExamples of some of a call's queries."""

    examples: RetrievalExamples
    positions: IntArray

    def index(self, rows: IntArray) -> list[Example]:
        return self.examples.index(rows)

    def queries(self, positions: IntArray) -> list[Example]:
        return self.examples.queries(self.positions[positions])


P = TypeVar("P", bound=Part)
AnyArrays = TypeVar("AnyArrays", IndexSet, QuerySet)
#: The arrays for a part of a chain: the index set, whose rows are the same for all parts, and all queries of the call.
Arrays: TypeAlias = Callable[[P], tuple[IndexSet, QuerySet]]
_NOTHING = Handed()


class Chain(Generic[P]):
    """Chained retrievers "A+B+C": each chooses among the rows of the previous one. A single retriever is a chain, too.

    Raises PluginError for a retriever with unknown needs, ConfigError for one that follows another but does not choose among
    its rows.
    """

    def __init__(self, parts: Sequence[P]) -> None:
        self.parts = tuple(parts)
        for part in parts:
            _check_needs(part)
        for before, part in pairwise(parts):
            if "among" not in part.retriever.needs:
                raise ConfigError(
                    f"{part.name} does not choose among the rows of another method, so it cannot follow {before.name}",
                    f"put it first: {part.name}{THEN}…",
                )

    @property
    def last(self) -> Retriever:
        """The last retriever, which determines the order of the demonstrations."""
        return self.parts[-1].retriever

    @property
    def joint(self) -> bool:
        """Whether the choice for a query may depend on the other queries."""
        return any(is_joint(part.retriever) for part in self.parts)

    def nested(self, shots: Collection[int]) -> bool:
        """Whether the choices for all these numbers are the first columns of the choice for the largest."""
        if not self.last.nested:
            return False
        return len(self.parts) == 1 or len({self.rows_per_part(k)[-2] for k in shots}) <= 1

    @property
    def shot_size(self) -> int:
        """The number of demonstrations of a shot: the largest of the retrievers'."""
        return max(p.retriever.shot_size if isinstance(p.retriever, HasShotSize) else 1 for p in self.parts)

    def rows_per_part(self, shots: int) -> tuple[int, ...]:
        """The number of rows that each retriever chooses so that the last one chooses `shots`. Raises PluginError for a
        retriever whose pool is smaller than what it chooses."""
        numbers = [shots]
        for part in reversed(self.parts[1:]):
            count = part.retriever.pool_size(numbers[0]) if isinstance(part.retriever, HasPoolSize) else numbers[0]
            if count < numbers[0]:
                raise PluginError(f"{part.name!r}: pool_size({numbers[0]}) must be at least {numbers[0]}, got {count}")
            numbers.insert(0, count)
        return tuple(numbers)

    @property
    def asking(self) -> int | None:
        """The position of the first retriever that asks the model; None if there is none."""
        return next((place for place, part in enumerate(self.parts) if "model" in part.retriever.needs), None)

    def retrieve(self, arrays: Arrays[P], shots: int, seed: int, handed: Handed = _NOTHING) -> IntArray:
        """Rows int64 [Q, shots] of the index set, checked by `checked_rows`; each retriever's rows must be among those of the
        previous one.

        A retriever gets fewer rows to choose from than its pool size if no more are left for a query. Raises ConfigError if a
        retriever needs examples or the model and they are not available, and what the retrievers raise.
        """
        last = self.parts[-1]
        return ask(last, *arrays(last), shots, seed, self.handed_to(len(self.parts) - 1, arrays, shots, seed, handed))

    def handed_to(self, place: int, arrays: Arrays[P], shots: int, seed: int, handed: Handed = _NOTHING) -> Handed:
        """The inputs of the retriever at this position, with the rows that the previous ones chose."""
        for part, count in zip(self.parts[:place], self.rows_per_part(shots), strict=False):
            among = _as_many_as_there_are(part, arrays(part), (shots, count), seed, handed)
            handed = replace(handed, among=among)
        return handed


class ModelForChoosing:
    """The ChoosingSession of a session. Retrievers may read the features of `index`."""

    def __init__(self, session: Session, index: IndexSet) -> None:
        self.task = session.task
        self._session, self._index = session, index
        self._rows = {example: row for row, example in enumerate(index.ids.tolist())}

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        return self._session.target_scores(requests)

    def choices(self, requests: Sequence[ScoringRequest]) -> list[dict[str, float]]:
        return rank_choices(self._session, requests)

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        return self._session.answers(requests)

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        return self._index.of(kind)[[self._rows[example.id] for example in examples]]


def ask(part: Part, index: IndexSet, queries: QuerySet, shots: int, seed: int, handed: Handed) -> IntArray:
    """The checked rows int64 [Q, shots] of one retriever, called with the inputs that it needs.

    Raises ConfigError if an input is not available, PluginError for rows that violate the contract.
    """
    available = {"among": handed.among, "examples": handed.examples, "session": handed.session}
    keywords = {HANDED[need]: available[HANDED[need]] for need in sorted(part.retriever.needs) if need in HANDED}
    missing = [need for need, name in HANDED.items() if keywords.get(name, "") is None and need != "among"]
    if missing:
        raise ConfigError(
            f"{part.name} needs {' and '.join(missing)}, which this command does not provide",
            "`icltool evaluate` provides all inputs",
        )
    retrieve: Callable[..., Any] = part.retriever.retrieve
    rows = checked_rows(part.name, retrieve(index, queries, shots, seed, **keywords), index, queries, shots)
    for q, among in enumerate(() if handed.among is None else handed.among):
        if len(others := np.setdiff1d(rows[q], among)):
            raise PluginError(
                f"{part.name!r} chose example {int(index.ids[others[0]])} for query {int(queries.ids[q])}, which is not "
                "among the rows that it was given"
            )
    return rows


def is_joint(retriever: Retriever) -> bool:
    """Whether the choice for a query may depend on the other queries of the call."""
    return isinstance(retriever, ChoosesJointly) and retriever.joint


def chain_parts(text: str) -> tuple[tuple[str, str | None], ...]:
    """(method, encoder) of each method that "A+B@ENCODER+C" or "A>B@ENCODER>C" names; None for a method without an encoder.
    ConfigError for what cannot be an encoder's name."""
    parts = []
    for part in text.replace(ALSO_THEN, THEN).split(THEN):
        name, sign, encoder = part.partition(BY)
        if sign and (not encoder.strip() or "/" in encoder):
            raise ConfigError(
                f"{text}: {encoder.strip()!r} is not the name of an encoder",
                f"for example i2i{BY}vit-l-14; the embeddings of OWNER/NAME have the name NAME",
            )
        parts.append((name.strip(), encoder.strip() or None))
    return tuple(parts)


def chain_names(text: str) -> tuple[str, ...]:
    """The methods that "A+B+C" or "A>B>C" names, without their encoders."""
    return tuple(name for name, _ in chain_parts(text))


def with_embeddings(arrays: AnyArrays, encoder: str) -> AnyArrays:
    """The same arrays, with the embeddings by `encoder` in place of those that no encoder is named for."""
    own = {need.partition(BY)[0]: vectors for need, vectors in arrays.embedded.items() if encoder_of(need) == encoder}
    return replace(arrays, image=own.get("image"), text=own.get("text"))


def own_options(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options of the method `name` among those of several, written NAME.OPTION or as a table of its own."""
    start = f"{name}."
    own = {key.removeprefix(start): value for key, value in options.items() if key.startswith(start)}
    return own | dict(options.get(name, {}))


def _as_many_as_there_are(
    part: Part, arrays: tuple[IndexSet, QuerySet], numbers: tuple[int, int], seed: int, handed: Handed
) -> IntArray:
    """int64 [Q, most]: the retriever's rows for each query, padded with -1 if fewer than `most` are left. `numbers` are
    (least, most); the retriever refuses a query with fewer than `least` left."""
    (index, queries), (least, most) = arrays, numbers
    counts = np.full(len(queries), most)
    if least < most:
        left = [_left(index, queries, position, handed) for position in range(len(queries))]
        counts = np.clip(np.array(left, dtype=np.int64), least, most)
    if is_joint(part.retriever):
        counts[:] = counts.min(initial=most)
    rows = np.full((len(queries), most), -1, dtype=np.int64)
    for count in np.unique(counts).tolist():
        group = np.flatnonzero(counts == count)
        whole = len(group) == len(queries)
        group_queries, group_handed = (queries, handed) if whole else (queries.take(group), handed.take(group))
        rows[group, :count] = ask(part, index, group_queries, count, seed, group_handed)
    return rows


def _left(index: IndexSet, queries: QuerySet, position: int, handed: Handed) -> int:
    """The number of rows that are left for a query."""
    if handed.among is not None:
        return int((handed.among[position] >= 0).sum())
    return len(index) - len(index.leaking_rows(queries, position))


def _check_needs(part: Part) -> None:
    unknown = sorted(need for need in part.retriever.needs if not is_array(need) and need not in HANDED)
    if unknown:
        known = sorted({*ARRAYS, *HANDED})
        close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.6)
        raise PluginError(
            f"{part.name!r} needs {', '.join(map(repr, unknown))}, which icltool does not provide",
            (f"did you mean {close[0]!r}? " if close else "")
            + f"needs: {', '.join(known)}, image@ENCODER, text@ENCODER",
        )
