"""Options of `icltool embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from icltool.config.base import HIDDEN, place
from icltool.config.executor import ExecutorConfig
from icltool.contracts.json import Json


class EmbedConfig(ExecutorConfig):
    """Encode the images and texts of a prepared data set.

    Similarity methods and selectors read these embeddings. Reads a prepared data set, writes one HDF5 file per split. Rerun
    an interrupted command to resume.

        icltool embed
        icltool embed --encoder vit-b-32 --dataset coco2017 --device cuda
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set to encode",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "complete": "datasets",
            "default": "the only prepared data set",
        },
    )
    task: str | None = Field(
        default=None,
        description="task, such as caption or vqa",
        json_schema_extra={"group": "Data", "daily": True, "default": "the first task of the data set"},
    )
    encoder: str = Field(
        default="vit-l-14",
        description="encoder of images and texts, from `icltool plugins list --kind encoders`",
        json_schema_extra={"group": "Model", "daily": True, "complete": "encoders"},
    )
    encoder_path: Path | None = Field(
        default=None,
        description="folder or file of the encoder's weights",
        json_schema_extra={"group": "Model", "daily": True, "default": "the published weights"},
    )
    device: str = Field(
        default="auto",
        description="device to run on: cpu, cuda, cuda:1 …; auto uses a GPU if there is one",
        json_schema_extra={**HIDDEN, "group": "Model", "daily": True},
    )
    precision: Literal["float32", "float16"] = Field(
        default="float32", description="precision of the stored embeddings", json_schema_extra={"group": "Output"}
    )
    image_pooling: Literal["mean", "first"] = Field(
        default="mean",
        description="embedding of an example with several images: the mean of their normalised embeddings, or the first "
        "image's alone",
        json_schema_extra={"group": "Model"},
    )
    batch_size: int = Field(
        default=64,
        ge=1,
        description="images or texts per forward pass",
        json_schema_extra={**HIDDEN, "group": "Speed and memory", "daily": True},
    )
    overwrite: bool = Field(
        default=False,
        description="overwrite existing embeddings made with different options",
        json_schema_extra={**HIDDEN, "group": "Output", "daily": True},
    )

    def identity(self) -> dict[str, Json]:
        """See StageConfig. Paths are absolute. The usual pooling is left out, so that older files keep their identity."""
        values = super().identity()
        if values["image_pooling"] == "mean":
            del values["image_pooling"]
        return {**values, "encoder_path": place(values["encoder_path"])}
