"""Optional abilities that components of several kinds share, each a Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class MadeForTasks(Protocol):
    """A metric or a scorer for certain tasks; on others a note says that it is not meaningful."""

    @property
    def tasks(self) -> Sequence[str]:
        """The names of the tasks."""
        ...


@runtime_checkable
class NeedsReferences(Protocol):
    """A metric or a scorer that needs several references per answer."""

    @property
    def least_references(self) -> int:
        """The smallest number of references per answer."""
        ...


@runtime_checkable
class HasIdentity(Protocol):
    """A learner or a retriever that states what determines its outcome."""

    def identity(self) -> Mapping[str, Any]:
        """The resolved options, defaults included, as JSON values; equal for options with the same outcome."""
        ...


@runtime_checkable
class HasRemarks(Protocol):
    """A retriever with notes for the user."""

    @property
    def remarks(self) -> Sequence[str]:
        """Lines for the user."""
        ...


@runtime_checkable
class OfDataset(Protocol):
    """A retriever for one version of a data set, refused with any other."""

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of that version; None if it is not known."""
        ...


@runtime_checkable
class ComparesImages(Protocol):
    """A retriever that compares images: examples without one are no demonstrations, and queries without one are answered with
    random ones."""

    @property
    def compared_images(self) -> frozenset[str]:
        """The sides whose images are compared: "queries", "demonstrations"."""
        ...


@runtime_checkable
class CountsLabels(Protocol):
    """A retriever whose number of demonstrations depends on the labels of the index set."""

    def shots_for(self, labels: Sequence[str]) -> int:
        """The number for an index set with these labels, its default."""
        ...

    def remarks_on(self, labels: Sequence[str]) -> Sequence[str]:
        """Lines for the user about these labels."""
        ...
