"""Options of `icltool export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from icltool.config.base import HIDDEN, StageConfig


def _listed(given: object) -> object:
    """One path as the only one; none for None."""
    return () if given is None else (given,) if isinstance(given, str | Path) else given


class ExportConfig(StageConfig):
    """Write sequences, selectors, fine-tuned models, results, plans and chats in formats that other programs read.

    Reads what the other stages wrote; changes none of it.

        icltool export results
        icltool export plan --method i2i --shots 4
        icltool export chat --format openai --images data
        icltool export model --output my-captioner
        icltool export model --format tar.gz --configuration no-paths
    """

    what: Literal["sequences", "selector", "model", "results", "plan", "chat"] = Field(
        description="generated sequences, the trained selector, the fine-tuned model, evaluation results, a plan (the "
        "demonstrations of each query, for `evaluate --plan`), or chat (the same with images and texts, for other harnesses)",
        json_schema_extra={"argument": True},
    )
    format: (
        Literal["json", "csv", "parquet", "safetensors", "folder", "tar.gz", "markdown", "latex", "messages", "openai"]
        | None
    ) = Field(
        default=None,
        description="sequences: json (the published id_list and score_list), csv or parquet; selector: safetensors; "
        "model: folder (as transformers has them) or tar.gz (a backup); results: csv, markdown, latex or json; plan: json; "
        "chat: messages (as chat templates of transformers take them) or openai (image_url parts); none: the first of these",
    )
    input: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = Field(
        default=(),
        description="sequences file, checkpoint folder or evaluation folder; none: the newest in the workspace. results: any "
        "number of evaluation folders, in one table. plan: evaluation folder or sequences file (best beams); chat: these or a "
        "plan file; none: the newest evaluation",
        json_schema_extra=HIDDEN,
    )
    output: Path | None = Field(
        default=None,
        description="file to write (selector, model: folder); none: named after the input, in the workspace's folder exports",
        json_schema_extra=HIDDEN,
    )
    append: Path | None = Field(
        default=None,
        description="results: CSV table to add a row to for each setting that it has not yet, with all that its figures depend "
        "on, as `evaluate --csv` does; in place of a file of their own",
        json_schema_extra={**HIDDEN, "metavar": "TABLE"},
    )
    dataset: str | None = Field(
        default=None,
        description="data set whose newest sequences or selector are meant, or that a plan is for; none: the one that "
        "the plan names, or the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    task: str | None = Field(default=None, description="caption or vqa; none: the data set's first task")
    learner: str | None = Field(
        default=None,
        description="learner whose newest selector or model is meant; none: lever-lm, of models captioner",
        json_schema_extra={"complete": "learners"},
    )
    checkpoint: Literal["min_vl", "min_tl", "best", "last"] | None = Field(
        default=None,
        description="selector: the checkpoint of the lowest validation loss (min_vl), of the lowest training loss (min_tl), or "
        "the last; model: best or last; none: min_vl, of models best",
    )
    weights: Literal["whole", "tuned"] | None = Field(
        default=None,
        description="model: all weights, or the fine-tuned ones alone, which need those that the training began with; none: "
        "whole",
    )
    configuration: Literal["whole", "no-paths", "none"] | None = Field(
        default=None,
        description="model: with the configuration of the training, with it but for every path of this machine, or without; "
        "none given: whole",
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="model: precision of all weights; none: float32"
    )
    method: str | None = Field(
        default=None,
        description="plan, chat: the evaluated setting of this retrieval method; none: the only one there is",
        json_schema_extra={"complete": "retrievers"},
    )
    shots: int | None = Field(
        default=None,
        ge=0,
        description="plan, chat: the evaluated setting of so many shots; none: the only one there is",
    )
    setting_seed: int | None = Field(
        default=None,
        description="plan, chat: the evaluated setting of this seed; none: the only one there is",
        json_schema_extra={"flag": "--seed"},
    )
    images: Literal["path", "data"] | None = Field(
        default=None,
        description="chat: images as paths (openai: file:// addresses) or as data, base64 in the file; none: path",
    )
    overwrite: bool = Field(
        default=False, description="replace an output that is there already", json_schema_extra=HIDDEN
    )
