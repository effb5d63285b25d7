"""Options of `icltool train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic.config import JsonDict

from icltool.config.base import HIDDEN
from icltool.config.model import LvlmConfig

_DATA: JsonDict = {**HIDDEN, "group": "Data"}


class TrainConfig(LvlmConfig):
    """Train a selector of demonstrations, an intervention that replaces them, or the model itself.

    Selectors (lever-lm, pointer) read generated sequences and embeddings. Interventions (live, mimic, lora, task-vector,
    function-vector, icv-pca) and the captioner read examples and run the model. Writes a checkpoint folder to the workspace.
    `icltool plugins show learners NAME` lists the options of a learner.

        icltool train lever-lm
        icltool train lever-lm --option variant=query_img_icd_img --option epochs=30
        icltool train live --model idefics-9b --option shots=32
    """

    learner: str = Field(
        default="lever-lm",
        description="what to train, from `icltool plugins list --kind learners`",
        json_schema_extra={"group": "Training", "argument": True, "complete": "learners"},
    )
    dataset: str | None = Field(
        default=None,
        description="prepared data set to learn from",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "complete": "datasets",
            "default": "the only prepared data set",
        },
    )
    task: str | None = Field(
        default=None,
        description="task, such as caption, vqa or classification",
        json_schema_extra={"group": "Data", "daily": True, "default": "the first task of the data set"},
    )
    sequences: Path | None = Field(
        default=None,
        description="selectors: file of generated sequences",
        json_schema_extra={**_DATA, "daily": True, "default": "the newest of the data set and the task"},
    )
    evaluations: tuple[Path, ...] = Field(
        default=(),
        description="learners of evaluations: folders that `icltool evaluate --queries train` wrote; evaluations of validation "
        "queries are refused",
        json_schema_extra=_DATA,
    )
    encoder: str | None = Field(
        default=None,
        description="selectors: encoder whose embeddings are read",
        json_schema_extra={
            "group": "Data",
            "complete": "encoders",
            "default": "the one that the sequences were sampled with, else the only encoder with embeddings",
        },
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="option of the learner, such as epochs=30 or shots=8; repeatable. `icltool plugins show learners NAME` "
        "lists them",
        json_schema_extra={"group": "Training", "daily": True, "flag": "--option"},
    )
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="option of Lightning's Trainer, such as accelerator=cpu, devices=2 or gradient_clip_val=1.0; repeatable",
        json_schema_extra={"group": "Training", "flag": "--trainer"},
    )
    leak_guard: tuple[Literal["image", "question", "text"], ...] | None = Field(
        default=None,
        description="interventions: demonstrations to withhold from the teacher's prompts: those with the example's image or a "
        "near-duplicate (image, always on), with its question (question), or whose text is its question and answer or one of "
        "its captions (text)",
        json_schema_extra={
            **HIDDEN,
            "group": "Demonstrations",
            "default": "that of the task: image,text for captions, else image",
        },
    )
    batch_size: int = Field(
        default=8,
        ge=1,
        description="prompts per forward pass of interventions that are not trained by gradient descent; the others take "
        "--option batch_size=NUMBER",
        json_schema_extra={**HIDDEN, "group": "Speed and memory"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="random seed of the initial weights, of the training examples and their order, and of demonstrations",
        json_schema_extra={"group": "Training", "daily": True},
    )
    overwrite: bool = Field(
        default=False,
        description="train again even if the checkpoint is up to date",
        json_schema_extra={**HIDDEN, "group": "Output", "daily": True},
    )
