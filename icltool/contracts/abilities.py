"""What components of several kinds may have beyond their contract, each a Protocol of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class MadeForTasks(Protocol):
    """A metric, or a scorer, that is made for some tasks; on others a remark says that it says little."""

    @property
    def tasks(self) -> Sequence[str]:
        """Their names."""
        ...


@runtime_checkable
class NeedsReferences(Protocol):
    """A metric, or a scorer, that judges by several references to each answer."""

    @property
    def least_references(self) -> int:
        """How many it needs for each."""
        ...


@runtime_checkable
class HasIdentity(Protocol):
    """A learner, or a retriever, that says what decides its outcome."""

    def identity(self) -> Mapping[str, Any]:
        """The resolved options, defaults included, JSON-ready; what leads to the same outcome is equal."""
        ...


@runtime_checkable
class HasRemarks(Protocol):
    """A retriever with something to say beside its figures."""

    @property
    def remarks(self) -> Sequence[str]:
        """Lines for the user."""
        ...


@runtime_checkable
class OfDataset(Protocol):
    """A retriever that was made for one version of a data set, and is refused with another."""

    @property
    def fingerprint(self) -> str | None:
        """That version's; None where it is not known."""
        ...
