"""Options of `icltool clean`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from icltool.config.amounts import parse_age, parse_size
from icltool.config.base import StageConfig

Kind = Literal["datasets", "embeddings", "sequences", "checkpoints", "evaluations", "captions", "exports", "cache"]


def _typed_age(value: object) -> object:
    return parse_age(value) if isinstance(value, str) else value


def _typed_size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


class CleanConfig(StageConfig):
    """List what lies in the workspace, and remove what is chosen, asking first.

    Without a choice it only lists. Several conditions choose what meets all of them. What another process is writing stays, and
    so does all that is none of icltool's; links are removed, never what they point to.

        icltool clean
        icltool clean --leftovers
        icltool clean --unreachable --older-than 30d --dry-run
        icltool clean --kind embeddings,cache --larger-than 1GB --yes
        icltool clean 'sequences/shapes-*'
    """

    names: tuple[str, ...] = Field(
        default=(),
        description="artefacts: KIND/NAME or NAME as listed, a path, or a pattern such as 'sequences/shapes-*'",
        json_schema_extra={"argument": True, "metavar": "NAME"},
    )
    kind: tuple[Kind, ...] = Field(default=(), description="only these kinds")
    older_than: Annotated[float, BeforeValidator(_typed_age)] | None = Field(
        default=None,
        description="only what was last changed so long ago, such as 12h, 30d, 2w or 6mo",
        json_schema_extra={"metavar": "AGE"},
    )
    larger_than: Annotated[float, BeforeValidator(_typed_size)] | None = Field(
        default=None,
        description="only what takes more than this, such as 500MB or 1GB",
        json_schema_extra={"metavar": "SIZE"},
    )
    unreachable: bool = Field(
        default=False,
        description="only what nothing can be made from any more: its data set is gone or was prepared anew with other "
        "content, or a cache is of other versions",
    )
    leftovers: bool = Field(
        default=False, description="only what killed runs left: temporary files, journals and locks of nothing"
    )
    dry_run: bool = Field(default=False, description="list what would be removed, and remove nothing")
    yes: bool = Field(default=False, description="remove without asking", json_schema_extra={"short": "-y"})

    @property
    def selects(self) -> bool:
        """Whether anything was asked for, beyond the list of all."""
        return bool(
            self.names
            or self.kind
            or self.unreachable
            or self.leftovers
            or self.older_than is not None
            or self.larger_than is not None
        )
