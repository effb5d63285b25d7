"""Retrievers choose the demonstrations of a query at evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import FloatArray, IndexSet, IntArray, QuerySet
from icltool.contracts.model import TargetScore
from icltool.contracts.records import Example
from icltool.contracts.scorer import ScoringRequest
from icltool.contracts.task import Task

#: What `needs` may name besides arrays, with the keyword argument of `retrieve` that it becomes.
HANDED: Mapping[str, str] = {"among": "among", "examples": "examples", "model": "session"}


@runtime_checkable
class Retriever(Protocol):
    """Chooses demonstrations for queries.

    `needs` names the arrays that must be filled ("image", "text", "texts", "images", "labels", and "text@NAME" or
    "image@NAME" for the embedding by encoder NAME, read as `index.of("text@NAME")`), and the keyword arguments that `retrieve`
    takes:

    - "among": `among`, int64 [Q, P] or None, rows that another method chose for each query, padded with -1 on the right. The
      method is then an *arranger*: it chooses only among a query's rows. They are in the other method's order (most similar
      first if that is ranked, else prompt order) and never leak. None: the method runs alone and chooses from the whole
      index set, or raises ConfigError if it needs another method before it. See HasPoolSize.
    - "examples": `examples`, a RetrievalExamples.
    - "model": `session`, a ChoosingSession. The method is then called with a few queries at a time.

    A method that names none of these has no keyword arguments. `ranked` is true when the answer is ordered from the
    most to the least similar (the caller may then reverse it, so that the most similar stands next to the query);
    otherwise it is in prompt order. `nested` is true when the answer for k shots is the first k columns of the answer
    for more (of an arranger: from the same `among`).
    See HasPoolSize, ChoosesJointly, ReadsCheckpoint, ReadsSequences, HasShots, HasLengths, HasShotSize, HasRemarks,
    HasIdentity, OfDataset, ReadsTheQuery and EmbeddedBy for optional abilities.
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
        """The queries at positions of the QuerySet, without anything that reveals their answers
        (`icltool.contracts.blanked`)."""
        ...


class ChoosingSession(Protocol):
    """The model, for methods that query it before they choose. A common prefix of several requests is computed once.

    The queries of requests come from `RetrievalExamples.queries`, so they have no label unless the method sets one
    (`dataclasses.replace`).
    """

    task: Task | str

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        """The log-probability of the label of each request's query, after its demonstrations."""
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
class HasPoolSize(Protocol):
    """An arranger that chooses from more rows than it returns."""

    def pool_size(self, shots: int) -> int:
        """The number of rows per query in `among` for this number of demonstrations: at least `shots`, the default."""
        ...


@runtime_checkable
class ChoosesJointly(Protocol):
    """A method whose answer for a query may depend on the other queries of the call. It gets all queries of a setting in one
    call, in their order; another set of queries is another setting. No row leaks for the query that it demonstrates."""

    @property
    def joint(self) -> bool:
        """Whether it does so with its options."""
        ...


@runtime_checkable
class ReadsTheQuery(Protocol):
    """A method that compares by one side of the query."""

    @property
    def query(self) -> str:
        """ "image" or "text". The text of a caption query is its own reference, so by text results are an upper bound."""
        ...


@runtime_checkable
class ReadsCheckpoint(Protocol):
    """A method that `icltool train` trains. It is built with `folder`, the checkpoint folder, and `checkpoint`, the name of the
    weights in it: "min_vl", "min_tl" or "last"."""

    @property
    def learner(self) -> str:
        """The learner whose checkpoints it reads. A class attribute: it decides which folder the method is built with."""
        ...


@runtime_checkable
class ReadsSequences(Protocol):
    """A method that uses sequences searched with the queries' labels: an upper bound. It is built with `file`."""

    @property
    def sequences(self) -> str:
        """The split whose queries they were searched for. The option `file` names the sequences; the default is the newest. A
        class attribute, like `ReadsCheckpoint.learner`."""
        ...


@runtime_checkable
class HasShots(Protocol):
    """A method with a fixed maximum of demonstrations per query."""

    @property
    def shots(self) -> int:
        """The maximum, and the default number of shots of an evaluation."""
        ...


@runtime_checkable
class HasLengths(Protocol):
    """A method that supports certain numbers of demonstrations only."""

    @property
    def lengths(self) -> Collection[int]:
        """The supported numbers; no other is requested."""
        ...


@runtime_checkable
class HasShotSize(Protocol):
    """A method whose shots are several demonstrations each, such as one of each class. `retrieve` is asked for a multiple of
    `shot_size` rows, and figures are shown by the number of shots."""

    @property
    def shot_size(self) -> int:
        """The number of demonstrations of a shot, positive."""
        ...


@runtime_checkable
class EmbeddedBy(Protocol):
    """A trained method that reads the embeddings it was trained on."""

    @property
    def encoder(self) -> str | None:
        """The encoder's name; None if it is not known."""
        ...
