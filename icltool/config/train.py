"""Options of `icltool train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.config import JsonDict

from icltool.config.base import StageConfig

_HIDDEN: JsonDict = {"hidden_in_artefact": True}


class TrainConfig(StageConfig):
    """What is trained, on which sequences, and how."""

    learner: str = Field(
        default="lever-lm", description="what is trained", json_schema_extra={"argument": True, "complete": "learners"}
    )
    dataset: str | None = Field(
        default=None,
        description="prepared data set; none: the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    task: str | None = Field(default=None, description="caption or vqa; none: the data set's first task")
    sequences: Path | None = Field(
        default=None,
        description="generated sequences; none: the newest of data set and task",
        json_schema_extra=_HIDDEN,
    )
    encoder: str | None = Field(
        default=None,
        description="whose embeddings the learner reads; none: those the sequences were sampled with, or the only ones",
        json_schema_extra={"complete": "encoders"},
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of the learner, such as variant=query_img_icd_img, epochs=30 or n_embd=256",
        json_schema_extra={"flag": "--option"},
    )
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="options of Lightning's Trainer, such as accelerator=cpu, devices=2 or gradient_clip_val=1.0",
        json_schema_extra={"flag": "--trainer"},
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="decides initial weights, validation split and order of the rows"
    )
    overwrite: bool = Field(default=False, description="train again what is up to date", json_schema_extra=_HIDDEN)
