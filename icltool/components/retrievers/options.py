"""Options that several retrievers share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icltool.components.retrievers.approximate import IndexOptions
from icltool.contracts import Options
from icltool.errors import ConfigError

Embedding = Literal["image", "text"]


class EmbeddingOptions(Options):
    """Which embeddings are compared: the query's and the demonstrations', which the encoder must map into one space."""

    query: Embedding = Field("image", description="embedding of the query that is compared")
    demonstration: Embedding = Field("image", description="embedding of the demonstrations that it is compared with")

    @property
    def needs(self) -> frozenset[str]:
        """See Retriever."""
        return frozenset({self.query, self.demonstration})


class PoolOptions(EmbeddingOptions, IndexOptions):
    """Of methods that choose among the nearest rows, or among those of another method."""

    pool: int = Field(64, ge=1, description="nearest rows among which the demonstrations are chosen")

    def wants(self, shots: int) -> int:
        """See WantsMore."""
        return max(self.pool, shots)


class SecondOptions(Options):
    """Of methods that choose from the whole index set, or among the rows of another method."""

    pool: int | None = Field(
        None, ge=1, description="behind another method (A+B): rows to choose among; none: as many as are shown"
    )

    def wants(self, shots: int) -> int:
        """See WantsMore."""
        return max(self.pool or 0, shots)

    def check_alone(self) -> None:
        """ConfigError for a pool where there is no method in front that would fill it."""
        if self.pool is not None:
            raise ConfigError(
                f"pool={self.pool} has no effect on a method that chooses from the whole index set",
                "leave it out, or name it for the method behind, which chooses among so many rows: A+B:B.pool=NUMBER",
            )
