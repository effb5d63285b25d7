"""Candidates that a retriever would choose."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ConfigDict, Field

from icltool.contracts import IndexSet, IntArray, Options, QuerySet
from icltool.engine.choosing import BY, Chain, Part, chain_parts, is_joint, own_options, with_embeddings
from icltool.errors import ConfigError


class RetrievedOptions(Options):
    """Which method; further options are the method's, as METHOD.NAME=VALUE."""

    model_config = ConfigDict(extra="allow")

    method: str = Field(
        description="retriever, or A+B to let B choose among what A chose; A@ENCODER reads the embeddings by that encoder"
    )
    components: str = Field(description="function that builds components, as package.module:name; set by icltool")


@dataclass(frozen=True)
class _Part(Part):
    """A retriever, and the encoder whose embeddings it reads; None for the call's."""

    encoder: str | None

    @property
    def needs(self) -> frozenset[str]:
        own = {"image", "text"} if self.encoder is not None else set()
        return frozenset(f"{need}{BY}{self.encoder}" if need in own else need for need in super().needs)

    def of(self, index: IndexSet, anchors: QuerySet) -> tuple[IndexSet, QuerySet]:
        """The arrays as the retriever reads them."""
        if self.encoder is None:
            return index, anchors
        return with_embeddings(index, self.encoder), with_embeddings(anchors, self.encoder)


class RetrievedSampler:
    """Any retriever as a sampler: a pool is what the retriever chooses for as many demonstrations, in its order.

    Raises ConfigError for an option that belongs to no retriever, and for a retriever that needs the model, reads examples or
    chooses jointly: pools are drawn before the model is loaded, for some anchors at a time.
    """

    options_model = RetrievedOptions

    def __init__(self, options: RetrievedOptions) -> None:
        module, _, function = options.components.partition(":")
        build = getattr(importlib.import_module(module), function)
        named, own = chain_parts(options.method), options.model_extra or {}
        _refuse_foreign(tuple(name for name, _ in named), own)
        self._chain = Chain(
            [_Part(name, build("retrievers", name, **own_options(own, name)), encoder) for name, encoder in named]
        )
        self.needs = frozenset().union(*(part.needs for part in self._chain.parts))
        for part in self._chain.parts:
            unmet = sorted(part.retriever.needs & {"model", "examples"})
            if unmet or is_joint(part.retriever):
                reason = f"needs {' and '.join(unmet)}" if unmet else "chooses for all queries together"
                raise ConfigError(f"sampler 'retrieved': {part.name} {reason}, which only `icltool evaluate` supports")

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]; see `icltool.contracts.Sampler`. DataError when too few rows are left."""
        return self._chain.retrieve(lambda part: part.of(index, anchors), size, seed)


def _refuse_foreign(names: tuple[str, ...], options: Mapping[str, object]) -> None:
    for key in options:
        if key.partition(".")[0] not in names:
            raise ConfigError(
                f"sampler 'retrieved': none of {', '.join(names)} has the option {key}",
                f"put the method's name in front: {names[-1]}.{key.rpartition('.')[2]}=…",
            )
