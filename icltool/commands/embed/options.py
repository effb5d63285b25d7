"""Options of `icltool embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from icltool.config.base import HIDDEN, place
from icltool.config.executor import ExecutorConfig
from icltool.contracts.json import Json


class EmbedConfig(ExecutorConfig):
    """Encode the images and texts of the prepared data set.

    Reads the prepared data set, writes one embeddings file per split. A run that was stopped goes on where it was when the
    same command is given again.

        icltool embed --encoder vit-l-14
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set; none: the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    task: str | None = Field(default=None, description="caption or vqa; none: the data set's first task")
    encoder: str = Field(
        default="vit-l-14", description="encoder of images and texts", json_schema_extra={"complete": "encoders"}
    )
    encoder_path: Path | None = Field(default=None, description="folder or file of the encoder's weights")
    device: str = Field(
        default="auto", description="cpu, cuda, cuda:1 …; auto takes a GPU when there is one", json_schema_extra=HIDDEN
    )
    precision: Literal["float32", "float16"] = Field(default="float32", description="how vectors are stored")
    batch_size: int = Field(default=64, ge=1, description="images or texts per forward pass", json_schema_extra=HIDDEN)
    overwrite: bool = Field(
        default=False,
        description="start anew where embeddings of other options are in the way",
        json_schema_extra=HIDDEN,
    )

    def identity(self) -> dict[str, Json]:
        """See StageConfig. Paths are absolute."""
        found = super().identity()
        return {**found, "encoder_path": place(found["encoder_path"])}
