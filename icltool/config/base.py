"""What the configurations of all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from icltool.config.fields import extras
from icltool.contracts.json import Json

Value = TypeVar("Value")

#: Marks an option that cannot change what is in an artefact: `json_schema_extra=HIDDEN`.
HIDDEN: dict[str, JsonValue] = {"hidden_in_artefact": True}


class StageConfig(BaseModel):
    """One stage's options. Each field's description is its help text, unit included; the command line is made from it.
    The further keys of its `json_schema_extra` are those of icltool.config.fields.Extras.
    """

    # Options of models begin with "model_", a prefix that pydantic reserves by default.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    #: Inherited options that this stage's short help leaves out.
    not_daily: ClassVar[frozenset[str]] = frozenset()

    workspace: Path = Field(
        default=Path("icl-workspace"),
        description="folder of all artefacts: data sets, embeddings, sequences, checkpoints and evaluations",
        json_schema_extra={
            "env": "ICLTOOL_WORKSPACE",
            "hidden_in_artefact": True,
            "group": "Every command",
            "daily": True,
            "aliases": ["--output-path"],
        },
    )

    def identity(self) -> dict[str, Json]:
        """The options that decide the result, JSON-ready, without those marked `hidden_in_artefact`."""
        hidden = {name for name, field in type(self).model_fields.items() if extras(field).get("hidden_in_artefact")}
        return self.model_dump(mode="json", exclude=hidden)


def place(path: Value) -> Value | str:
    """The absolute path of something that exists; anything else unchanged."""
    return str(Path(path).resolve()) if isinstance(path, str) and path and Path(path).exists() else path
