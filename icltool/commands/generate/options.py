"""Options of `icltool generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from icltool.config.executor import ExecutorConfig
from icltool.config.model import ModelConfig

_HIDDEN: dict[str, Any] = {"hidden_in_artefact": True}


class GenerateConfig(ModelConfig, ExecutorConfig):
    """Search, for each anchor, the demonstration sequences that help the model most.

    Reads the prepared data set (and embeddings, for similarity samplers), writes a sequences file. A run that was stopped
    goes on where it was when the same command is given again.

        icltool generate --model idefics-9b --anchors 5000 --shots 2
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set; none: the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    task: str | None = Field(default=None, description="caption or vqa; none: the data set's first task")
    encoder: str | None = Field(
        default=None,
        description="whose embeddings similarity samplers use; none: the only ones there are",
        json_schema_extra={"complete": "encoders"},
    )
    queries: Literal["train", "validation"] = Field(
        default="train",
        description="split that anchors are drawn from: train, to learn from; validation, for the retrieval method `oracle` "
        "(nothing may be trained on those)",
    )
    anchors: int = Field(default=5000, ge=1, description="examples that sequences are generated for")
    sampler: str = Field(
        default="random",
        description="how each anchor's candidate pool is drawn",
        json_schema_extra={"complete": "samplers"},
    )
    sampler_options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of the sampler, such as random=0.5 of `mix`",
        json_schema_extra={"flag": "sampler-option"},
    )
    candidates: int = Field(default=64, ge=1, description="size of each anchor's candidate pool")
    leak_guard: tuple[Literal["image", "question", "text"], ...] | None = Field(
        default=None,
        description="candidates that no anchor gets: of its image or near-duplicates (image, always), with its question "
        "(question), or whose whole text is its question with its answer (text; captions: one of its captions). None: "
        "image,text for captions, else image",
    )
    scorer: str = Field(
        default="infoscore", description="what makes a sequence good", json_schema_extra={"complete": "scorers"}
    )
    scorer_options: dict[str, Any] = Field(
        default_factory=dict, description="options of the scorer", json_schema_extra={"flag": "scorer-option"}
    )
    infoscore_norm: Literal["mean", "sum"] = Field(
        default="mean",
        description="InfoScore from the mean log-probability per token (as the published code) "
        "or the sum (the paper's formula)",
    )
    beam_size: int = Field(default=5, ge=1, description="sequences kept after each step")
    beam_score: Literal["increment", "cumulative"] = Field(
        default="increment", description="rank beams by the gain of the last step (as published) or by the whole gain"
    )
    shots: int = Field(default=2, ge=1, description="demonstrations per sequence")
    construct_order: Literal["left", "right"] = Field(
        default="left",
        description="left: each new demonstration stands next to the query; right: in front of the others. Ids are recorded "
        "in prompt order (the published code inserts at the front under the name left, and with right records another "
        "order than it scored)",
    )
    seed: int = Field(default=0, description="decides anchors and candidate pools")
    anchors_at_once: int | None = Field(
        default=None,
        ge=1,
        description="anchors that are searched together, so that batches are full; none: enough for eight batches in the last "
        "step. An interrupted run loses at most so many",
        json_schema_extra=_HIDDEN,
    )
    output: Path | None = Field(
        default=None, description="sequences file to write; none: named after the options", json_schema_extra=_HIDDEN
    )
    dry_run: bool = Field(
        default=False,
        description="only say how many prompts, images and tokens there will be, and how long it takes by a short measurement",
        json_schema_extra=_HIDDEN,
    )
    overwrite: bool = Field(
        default=False, description="start anew where a file of other options is in the way", json_schema_extra=_HIDDEN
    )
