"""Options that several retrievers share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icltool.components.retrievers.approximate import IndexOptions
from icltool.contracts import Options
from icltool.errors import ConfigError

Embedding = Literal["image", "text"]


class EmbeddingOptions(Options):
    """Which embeddings of queries and demonstrations are compared; the encoder must map both into one space."""

    query: Embedding = Field("image", description="embedding of the query")
    demonstration: Embedding = Field(
        "image", description="embedding of the demonstrations that the query is compared with"
    )

    @property
    def needs(self) -> frozenset[str]:
        """See Retriever."""
        return frozenset({self.query, self.demonstration})


class PoolOptions(EmbeddingOptions, IndexOptions):
    """Options of retrievers that choose among the nearest rows, or among those of another retriever."""

    pool: int = Field(64, ge=1, description="number of nearest rows to choose among")

    def pool_size(self, shots: int) -> int:
        """See HasPoolSize."""
        return max(self.pool, shots)


class SecondOptions(Options):
    """Options of retrievers that choose from the whole index set, or among the rows of another retriever."""

    pool: int | None = Field(
        None,
        ge=1,
        description="after another method (A+B): number of its rows to choose among; default: the number of shots",
    )

    def pool_size(self, shots: int) -> int:
        """See HasPoolSize."""
        return max(self.pool or 0, shots)

    def check_alone(self) -> None:
        """Raises ConfigError for a pool without a preceding method to fill it."""
        if self.pool is not None:
            raise ConfigError(
                f"pool={self.pool} has no effect on a method that chooses from the whole index set",
                "leave it out, or set it for the second method of a chain: A+B:B.pool=NUMBER",
            )
