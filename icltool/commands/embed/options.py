"""Options of `icltool embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from icltool.config.base import HIDDEN, place
from icltool.config.encoder import ChosenEncoder, chosen_encoder, is_published, name_of
from icltool.config.executor import ExecutorConfig
from icltool.contracts.json import Json


class EmbedConfig(ExecutorConfig):
    """Encode the images and texts of a prepared data set.

    Similarity methods and selectors read these embeddings. Reads a prepared data set, writes one HDF5 file per split. Rerun
    an interrupted command to resume.

        icltool embed
        icltool embed --encoder vit-b-32 --dataset coco2017 --device cuda
        icltool embed --encoder-path google/siglip2-base-patch16-224
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
        description="encoder of images, texts or both, from `icltool plugins list --kind encoders`; with --encoder-path, also "
        "a name of your own",
        json_schema_extra={"group": "Model", "daily": True, "complete": "encoders"},
    )
    encoder_path: Path | None = Field(
        default=None,
        description="weights of the encoder: a folder or file; or, to download them, OWNER/NAME of the Hugging Face hub or "
        "ARCHITECTURE/TAG of open_clip. Without --encoder, the folder of any encoder",
        json_schema_extra={"group": "Model", "daily": True, "default": "the published weights"},
    )
    encoder_options: dict[str, Any] = Field(
        default_factory=dict,
        description="option of the encoder, such as pooling=mean or 'prefix=query: '; repeatable. `icltool plugins show "
        "encoders NAME` lists them",
        json_schema_extra={"flag": "--encoder-option", "group": "Model"},
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
    text_field: str | None = Field(
        default=None,
        pattern=r"^[a-z_][a-z0-9_]*$",
        description="text to encode: question, style or a further field of the data set. Its embeddings are called "
        "ENCODER.FIELD, as in --method t2t@minilm.hint",
        json_schema_extra={"group": "Data", "default": "the text that the data set's reader chose"},
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
        """See StageConfig. Paths are absolute; one of the published weights only permits their download. The usual pooling and
        options that are not set are left out, so that older files keep their identity."""
        values = super().identity()
        path = None if self.encoder_path is None else str(self.encoder_path)
        values["encoder_path"] = None if path is None or is_published(self.encoder, path) else place(path)
        usual: dict[str, Json] = {"image_pooling": "mean", "encoder_options": {}, "text_field": None}
        return {name: value for name, value in values.items() if name not in usual or value != usual[name]}

    @property
    def label(self) -> str:
        """What the embeddings are called: the encoder's name, with that of the field if one is given."""
        return self.encoder if self.text_field is None else f"{self.encoder}.{self.text_field}"

    def chosen_encoder(self) -> ChosenEncoder:
        """See `icltool.config.encoder.chosen_encoder`."""
        path = None if self.encoder_path is None else str(self.encoder_path)
        return chosen_encoder(self.encoder, path, self.encoder_options)

    @model_validator(mode="before")
    @classmethod
    def _named_by_path(cls, values: Any) -> Any:
        """Without a name, the path of an encoder names it."""
        if not isinstance(values, dict) or "encoder" in values or values.get("encoder_path") is None:
            return values
        name = name_of(str(values["encoder_path"]))
        return values if name is None else {**values, "encoder": name}
