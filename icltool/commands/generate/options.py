"""Options of `icltool generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from icltool.config.base import HIDDEN
from icltool.config.choices import ChoiceConfig
from icltool.config.executor import ExecutorConfig
from icltool.config.model import ModelConfig

_SOUGHT: dict[str, Any] = {"group": "Demonstrations"}
_OUTPUT: dict[str, Any] = {**HIDDEN, "group": "Output"}


class GenerateConfig(ModelConfig, ChoiceConfig, ExecutorConfig):
    """Search, for each anchor, the demonstration sequences that help the model most.

    `icltool train lever-lm` learns from these sequences. Reads a prepared data set and, for similarity samplers, its
    embeddings; writes an HDF5 file of sequences and scores. Rerun an interrupted command to resume.

        icltool generate --model tiny-idefics --anchors 100 --candidates 16
        icltool generate --model idefics-9b --anchors 5000 --shots 2
        icltool generate --sampler image-sim --anchors 1000 --dry-run
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set to search in",
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
    index_dataset: str | None = Field(
        default=None,
        description="prepared data set to take the demonstrations from, of the same task, with --queries validation",
        json_schema_extra={**HIDDEN, "group": "Data", "complete": "datasets", "default": "the data set of the queries"},
    )
    encoder: str | None = Field(
        default=None,
        description="encoder whose embeddings the sampler reads",
        json_schema_extra={**_SOUGHT, "complete": "encoders", "default": "the only encoder with embeddings"},
    )
    queries: Literal["train", "validation"] = Field(
        default="train",
        description="split that anchors are drawn from: train for training a selector, validation for the method oracle; no "
        "selector may be trained on the latter",
        json_schema_extra={"group": "Data"},
    )
    anchors: int = Field(
        default=5000,
        ge=1,
        description="number of anchors, the examples of the index set to search sequences for, drawn at random",
        json_schema_extra={"group": "Data", "daily": True, "aliases": ["--limit"]},
    )
    sampler: str = Field(
        default="random",
        description="how to draw the candidates of each anchor, from `icltool plugins list --kind samplers`",
        json_schema_extra={**_SOUGHT, "daily": True, "complete": "samplers"},
    )
    sampler_options: dict[str, Any] = Field(
        default_factory=dict,
        description="option of the sampler, such as random=0.5 for mix; repeatable. `icltool plugins show samplers NAME` lists "
        "them",
        json_schema_extra={**_SOUGHT, "flag": "sampler-option"},
    )
    candidates: int = Field(
        default=64,
        ge=1,
        description="candidate demonstrations per anchor",
        json_schema_extra={**_SOUGHT, "daily": True},
    )
    leak_guard: tuple[Literal["image", "question", "text"], ...] | None = Field(
        default=None,
        description="candidates to withhold from an anchor: those with its image or a near-duplicate (image, always on), with "
        "its question (question), or whose text is its question and answer or one of its captions (text)",
        json_schema_extra={**_SOUGHT, "default": "that of the task: image,text for captions, else image"},
    )
    scorer: str = Field(
        default="infoscore",
        description="score to maximise, from `icltool plugins list --kind scorers`",
        json_schema_extra={**_SOUGHT, "daily": True, "complete": "scorers"},
    )
    scorer_options: dict[str, Any] = Field(
        default_factory=dict,
        description="option of the scorer; repeatable. `icltool plugins show scorers NAME` lists them",
        json_schema_extra={**_SOUGHT, "flag": "scorer-option"},
    )
    infoscore_norm: Literal["mean", "sum"] = Field(
        default="mean",
        description="infoscore: mean of the label's token log-probabilities, as in the published code, or their sum, as in the "
        "paper",
        json_schema_extra=_SOUGHT,
    )
    beam_size: int = Field(
        default=5,
        ge=1,
        description="beams of the search: sequences kept at each step",
        json_schema_extra={**_SOUGHT, "daily": True},
    )
    beam_score: Literal["increment", "cumulative"] = Field(
        default="increment",
        description="rank beams by the gain of the last step, as in the published code, or by the total gain",
        json_schema_extra=_SOUGHT,
    )
    shots: int = Field(
        default=2, ge=1, description="demonstrations per sequence", json_schema_extra={**_SOUGHT, "daily": True}
    )
    construct_order: Literal["left", "right"] = Field(
        default="left",
        description="where a new demonstration goes: left puts it next to the query, right in front of the others. The file "
        "lists demonstrations in prompt order",
        json_schema_extra=_SOUGHT,
    )
    seed: int = Field(
        default=0,
        description="random seed of the anchors and their candidates",
        json_schema_extra={**_SOUGHT, "daily": True},
    )
    anchors_at_once: int | None = Field(
        default=None,
        ge=1,
        description="anchors to search together, to fill batches; an interruption loses at most the work on these",
        json_schema_extra={
            **HIDDEN,
            "group": "Speed and memory",
            "default": "enough to fill eight batches in the last step",
        },
    )
    output: Path | None = Field(
        default=None,
        description="sequences file to write",
        json_schema_extra={**_OUTPUT, "default": "named after the options, in the workspace's folder sequences"},
    )
    dry_run: bool = Field(
        default=False,
        description="only count prompts, images and tokens, and estimate the time by a short measurement",
        json_schema_extra={**_OUTPUT, "daily": True},
    )
    overwrite: bool = Field(
        default=False,
        description="overwrite an existing file made with different options",
        json_schema_extra={**_OUTPUT, "daily": True},
    )
