"""Options of `icltool train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic.config import JsonDict

from icltool.config.model import LvlmConfig

_HIDDEN: JsonDict = {"hidden_in_artefact": True}


class TrainConfig(LvlmConfig):
    """Train a selector of demonstrations, an intervention that takes their place, or the model itself.

    Selectors (lever-lm, pointer) learn from a sequences file and the embeddings of the index set. Interventions
    (live, mimic, lora, task-vector, function-vector, icv-pca) and the captioner learn from examples and the model itself, and
    need neither. Writes checkpoints and their card; `icltool plugins show learners NAME` lists a learner's options.

        icltool train lever-lm

        icltool train live --model idefics-9b --option shots=32
    """

    learner: str = Field(
        default="lever-lm", description="what is trained", json_schema_extra={"argument": True, "complete": "learners"}
    )
    dataset: str | None = Field(
        default=None,
        description="prepared data set; none: the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    task: str | None = Field(
        default=None, description="caption, vqa or classification; none: the data set's first task"
    )
    sequences: Path | None = Field(
        default=None,
        description="selectors: generated sequences; none: the newest of data set and task",
        json_schema_extra=_HIDDEN,
    )
    evaluations: tuple[Path, ...] = Field(
        default=(),
        description="learners of evaluations: folders of `icltool evaluate --queries train`; those of validation queries are "
        "refused",
        json_schema_extra=_HIDDEN,
    )
    encoder: str | None = Field(
        default=None,
        description="selectors: whose embeddings are read; none: those the sequences were sampled with, or the only ones",
        json_schema_extra={"complete": "encoders"},
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of the learner, such as variant=query_img_icd_img, epochs=30 or shots=8 (`icltool plugins show "
        "learners NAME` lists them)",
        json_schema_extra={"flag": "--option"},
    )
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="options of Lightning's Trainer, such as accelerator=cpu, devices=2 or gradient_clip_val=1.0",
        json_schema_extra={"flag": "--trainer"},
    )
    leak_guard: tuple[Literal["image", "question", "text"], ...] | None = Field(
        default=None,
        description="what stands in for demonstrations: demonstrations that the teacher is not shown, as of evaluate",
        json_schema_extra=_HIDDEN,
    )
    batch_size: int = Field(
        default=8,
        ge=1,
        description="prompts per forward pass where nothing is trained by gradients; batches of training are an option of the "
        "learner (--option batch_size=…)",
        json_schema_extra=_HIDDEN,
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="decides initial weights, which examples are learned from, their demonstrations and their order",
    )
    overwrite: bool = Field(default=False, description="train again what is up to date", json_schema_extra=_HIDDEN)
