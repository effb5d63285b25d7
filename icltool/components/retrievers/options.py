"""Options that several retrieval methods share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icltool.components.retrievers.approximate import IndexOptions
from icltool.contracts import Options

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
    """Of methods that choose among the nearest rows."""

    pool: int = Field(64, ge=1, description="nearest rows among which the demonstrations are chosen")
