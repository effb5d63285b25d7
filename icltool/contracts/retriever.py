"""Retrieval methods choose the demonstrations of a query at evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import FloatArray, IndexSet, IntArray, QuerySet
from icltool.contracts.model import TargetScore
from icltool.contracts.records import Example
from icltool.contracts.scorer import ScoringRequest
from icltool.contracts.task import Task

#: What `needs` may name beside arrays, and the keyword argument that it is handed to `retrieve` as.
HANDED: Mapping[str, str] = {"among": "among", "examples": "examples", "model": "session"}


@runtime_checkable
class Retriever(Protocol):
    """Chooses demonstrations for queries.

    `needs` names the arrays that must be filled ("image", "text", "texts", "images", "labels", and "text@NAME" or
    "image@NAME" for the embedding by encoder NAME, read as `index.of("text@NAME")`), and what comes as a keyword argument of
    `retrieve`:

    - "among": `among`, int64 [Q, P] or None, rows that another method chose for each query, padded with -1 on the right. The
      method is an *arranger* then: all that it answers for a query is among its rows. They are in the other method's order
      (most similar first where that is ranked, else prompt order) and never leak. None: the method runs alone, and has the
      whole index set to choose from, or raises ConfigError where it cannot do without. See WantsMore.
    - "examples": `examples`, a RetrievalExamples.
    - "model": `session`, a ChoosingSession. The method is called with some queries at a time.

    A method that names none of these has no keyword arguments. `ranked` is true when the answer is ordered from the
    most to the least similar (the caller may then reverse it, so that the most similar stands next to the query);
    otherwise it is in prompt order. `nested` is true when the answer for k shots is the first k columns of the answer
    for more (of an arranger: from the same `among`).
    See WantsMore, ChoosesJointly, ReadsCheckpoint, ReadsSequences, HasShots, HasLengths, HasRemarks, HasIdentity,
    OfDataset, ReadsTheQuery and EmbeddedBy for what it may have besides.
    """

    needs: frozenset[str]
    ranked: bool
    nested: bool

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots], distinct per query, never one of `index.leaking_rows(queries, q)`.

        A query's answer does not depend on the other queries of the call, unless the method ChoosesJointly.
        """
        ...


class RetrievalExamples(Protocol):
    """The examples behind the arrays of a call."""

    def index(self, rows: IntArray) -> list[Example]:
        """Those of rows of the index set."""
        ...

    def queries(self, positions: IntArray) -> list[Example]:
        """The queries at positions of the QuerySet, without what tells their answers (`icltool.contracts.blanked`)."""
        ...


class ChoosingSession(Protocol):
    """The model, for methods that ask it before they choose. What requests have in common at their beginning is read once.

    The queries of requests are those of `RetrievalExamples.queries`, so they have no label but one that the method itself
    puts there (`dataclasses.replace`).
    """

    task: Task | str

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        """The log-probability of the label that each request's query was given, after its demonstrations."""
        ...

    def choices(self, requests: Sequence[ScoringRequest]) -> list[dict[str, float]]:
        """For each request, the mean log-probability per token in nats of each of its query's choices, in their order.
        DataError for a query without choices."""
        ...

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        """The model's generated answer to each request, cleaned."""
        ...

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        """Embeddings float32 [n, D] of index-set examples; `kind` is a need of the method, such as "image"."""
        ...


@runtime_checkable
class WantsMore(Protocol):
    """An arranger that chooses `shots` of more rows, or of another number than it is asked for."""

    def wants(self, shots: int) -> int:
        """How many rows per query `among` should have for so many demonstrations, at least `shots`. Without this: `shots`."""
        ...


@runtime_checkable
class ChoosesJointly(Protocol):
    """A method whose answer for a query may depend on the queries that it is given with. It gets all queries of a setting in
    one call, in their order; another set of queries is another setting. No row of an answer leaks for the query that is shown
    it."""

    @property
    def joint(self) -> bool:
        """True where that is so, with the method's options."""
        ...


@runtime_checkable
class ReadsTheQuery(Protocol):
    """A method that compares by one side of the query."""

    @property
    def query(self) -> str:
        """ "image" or "text". By the text of a caption query, which is its own reference, results are an upper bound."""
        ...


@runtime_checkable
class ReadsCheckpoint(Protocol):
    """A method that `icltool train` trained; built with `folder`, the checkpoint folder, and `checkpoint`, the name of the
    weights in it: "min_vl", "min_tl" or "last"."""

    @property
    def learner(self) -> str:
        """The learner whose checkpoints it reads. A class attribute: it decides which folder the method is built with."""
        ...


@runtime_checkable
class ReadsSequences(Protocol):
    """A method that shows sequences which were searched with the queries' labels: an upper bound. Built with `file`."""

    @property
    def sequences(self) -> str:
        """The split whose queries they were searched for; its option `file` names them, or the newest are taken. A class
        attribute, as `ReadsCheckpoint.learner`."""
        ...


@runtime_checkable
class HasShots(Protocol):
    """A method that has so many demonstrations for each query and no more."""

    @property
    def shots(self) -> int:
        """How many. It is evaluated with as many where the user asks for no number, and never asked for more."""
        ...


@runtime_checkable
class HasLengths(Protocol):
    """A method that has demonstrations of some numbers only."""

    @property
    def lengths(self) -> Collection[int]:
        """Those numbers; it is asked for no others."""
        ...


@runtime_checkable
class EmbeddedBy(Protocol):
    """A trained method that reads the embeddings it was trained on."""

    @property
    def encoder(self) -> str | None:
        """The encoder's name; None where that is not known."""
        ...
