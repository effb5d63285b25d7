"""Options of `icltool export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from icltool.config.base import StageConfig

_DATA: JsonDict = {"group": "Data"}
_OUTPUT: JsonDict = {"group": "Output"}


def _listed(value: object) -> object:
    """One path as the only one; none for None."""
    return () if value is None else (value,) if isinstance(value, str | Path) else value


def _fine_tuned(value: object) -> object:
    """The former name of fine-tuned weights is still accepted."""
    return "fine-tuned" if value == "tuned" else value


class ExportConfig(StageConfig):
    """Export sequences, selectors, fine-tuned models, results, plans or chats to formats that other programs read.

    Reads what other commands wrote, by default the newest; writes to the workspace's folder exports.

        icltool export results
        icltool export plan --method i2i --shots 4
        icltool export chat --format openai --images data
        icltool export model --format tar.gz --configuration no-paths
    """

    what: Literal["sequences", "selector", "model", "results", "plan", "chat"] = Field(
        description="what to export: generated sequences, a trained selector, a fine-tuned model, evaluation results, a plan "
        "(the demonstrations of each query, for `icltool evaluate --plan`) or a chat (a plan with its images and texts)",
        json_schema_extra={**_DATA, "argument": True},
    )
    format: (
        Literal["json", "csv", "parquet", "safetensors", "folder", "tar.gz", "markdown", "latex", "messages", "openai"]
        | None
    ) = Field(
        default=None,
        description="sequences: json (id_list and score_list, as published), csv or parquet; selector: safetensors; model: "
        "folder (for transformers) or tar.gz (a backup); results: csv, markdown, latex or json; plan: json; chat: messages "
        "(for chat templates of transformers) or openai",
        json_schema_extra={**_OUTPUT, "daily": True, "default": "the first of these"},
    )
    input: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = Field(
        default=(),
        description="sequences: sequences file; selector, model: checkpoint folder; results: evaluation folders, in one table; "
        "plan: evaluation folder or sequences file; chat: evaluation folder, sequences file or plan",
        json_schema_extra={
            **_DATA,
            "hidden_in_artefact": True,
            "daily": True,
            "default": "the newest in the workspace; for plan and chat, the newest evaluation",
        },
    )
    output: Path | None = Field(
        default=None,
        description="file to write; a folder for selector and model",
        json_schema_extra={
            **_OUTPUT,
            "hidden_in_artefact": True,
            "daily": True,
            "default": "named after the input, in the workspace's folder exports",
        },
    )
    append: Path | None = Field(
        default=None,
        description="results: CSV file to append new rows to, one per setting, as `icltool evaluate --csv` does",
        json_schema_extra={**_OUTPUT, "hidden_in_artefact": True, "metavar": "TABLE", "default": "a new file"},
    )
    dataset: str | None = Field(
        default=None,
        description="prepared data set whose newest sequences or selector to export, or that a plan belongs to",
        json_schema_extra={
            **_DATA,
            "daily": True,
            "complete": "datasets",
            "default": "the one that the plan names, else the only prepared data set",
        },
    )
    task: str | None = Field(
        default=None,
        description="task, such as caption or vqa",
        json_schema_extra={**_DATA, "daily": True, "default": "the first task of the data set"},
    )
    learner: str | None = Field(
        default=None,
        description="learner whose newest selector or model to export",
        json_schema_extra={**_DATA, "complete": "learners", "default": "lever-lm; captioner for model"},
    )
    checkpoint: Literal["min_vl", "min_tl", "best", "last"] | None = Field(
        default=None,
        description="weights: selector: those with the lowest validation loss (min_vl), the lowest training loss (min_tl), or "
        "the last; model: best or last",
        json_schema_extra={**_DATA, "default": "min_vl; best for model"},
    )
    weights: Annotated[Literal["whole", "fine-tuned"] | None, BeforeValidator(_fine_tuned)] = Field(
        default=None,
        description="model: all weights, or only the fine-tuned ones, which are of use only with the original weights",
        json_schema_extra={**_OUTPUT, "default": "whole"},
    )
    configuration: Literal["whole", "no-paths", "none"] | None = Field(
        default=None,
        description="model: include the configuration of the training: all of it, without the paths of this machine, or none",
        json_schema_extra={**_OUTPUT, "default": "whole"},
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None,
        description="model: precision of the exported weights",
        json_schema_extra={**_OUTPUT, "default": "float32"},
    )
    method: str | None = Field(
        default=None,
        description="plan, chat: method of the setting to export",
        json_schema_extra={
            **_DATA,
            "daily": True,
            "complete": "retrievers",
            "default": "the only one of the evaluation",
        },
    )
    shots: int | None = Field(
        default=None,
        ge=0,
        description="plan, chat: number of shots of the setting to export",
        json_schema_extra={**_DATA, "daily": True, "default": "the only one of the evaluation"},
    )
    setting_seed: int | None = Field(
        default=None,
        description="plan, chat: random seed of the setting to export",
        json_schema_extra={**_DATA, "daily": True, "flag": "--seed", "default": "the only one of the evaluation"},
    )
    images: Literal["path", "data"] | None = Field(
        default=None,
        description="chat: refer to images by path (a file:// address for openai), or embed them in base64 (data)",
        json_schema_extra={**_OUTPUT, "default": "path"},
    )
    overwrite: bool = Field(
        default=False,
        description="replace an existing output",
        json_schema_extra={**_OUTPUT, "hidden_in_artefact": True, "daily": True},
    )
