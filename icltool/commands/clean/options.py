"""Options of `icltool clean`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from icltool.config.amounts import parse_age, parse_size
from icltool.config.base import StageConfig

_CHOICE: JsonDict = {"group": "Data", "daily": True}
Kind = Literal["datasets", "embeddings", "sequences", "checkpoints", "evaluations", "captions", "exports", "cache"]


def _typed_age(value: object) -> object:
    return parse_age(value) if isinstance(value, str) else value


def _typed_size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


class CleanConfig(StageConfig):
    """List the files of the workspace, or remove some of them after confirmation.

    Without options it only lists. With several conditions it selects what meets all of them. Files that another process is
    writing, and files that icltool did not write, are never removed; of a link only the link itself is removed.

        icltool clean
        icltool clean --leftovers
        icltool clean --unreachable --older-than 30d --dry-run
        icltool clean --kind embeddings,cache --larger-than 1GB --yes
        icltool clean 'sequences/shapes-*'
    """

    names: tuple[str, ...] = Field(
        default=(),
        description="artefacts to remove: KIND/NAME or NAME as listed, a path, or a pattern such as 'sequences/shapes-*'",
        json_schema_extra={**_CHOICE, "argument": True, "metavar": "NAME", "default": "all that the options select"},
    )
    kind: tuple[Kind, ...] = Field(
        default=(), description="only artefacts of these kinds", json_schema_extra={**_CHOICE, "default": "all kinds"}
    )
    older_than: Annotated[float, BeforeValidator(_typed_age)] | None = Field(
        default=None,
        description="only artefacts last changed longer ago than this, such as 12h, 30d, 2w or 6mo",
        json_schema_extra={**_CHOICE, "metavar": "AGE", "default": "any age"},
    )
    larger_than: Annotated[float, BeforeValidator(_typed_size)] | None = Field(
        default=None,
        description="only artefacts larger than this, such as 500MB or 1GB",
        json_schema_extra={**_CHOICE, "metavar": "SIZE", "default": "any size"},
    )
    unreachable: bool = Field(
        default=False,
        description="only artefacts that no command can use any more: their data set was removed or replaced, or they are "
        "caches of other versions",
        json_schema_extra=_CHOICE,
    )
    leftovers: bool = Field(
        default=False,
        description="only temporary files, journals and locks that killed runs left behind",
        json_schema_extra=_CHOICE,
    )
    dry_run: bool = Field(
        default=False,
        description="list what would be removed, without removing it",
        json_schema_extra={"group": "Output", "daily": True},
    )
    yes: bool = Field(
        default=False,
        description="remove without asking",
        json_schema_extra={"group": "Output", "daily": True, "short": "-y"},
    )

    @property
    def selects(self) -> bool:
        """Whether any option selects artefacts; without one, all are only listed."""
        return bool(
            self.names
            or self.kind
            or self.unreachable
            or self.leftovers
            or self.older_than is not None
            or self.larger_than is not None
        )
