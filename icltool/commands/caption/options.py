"""Options of `icltool caption`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic.config import JsonDict

from icltool.config.base import HIDDEN
from icltool.config.generation import GenerationConfig

_DATA: JsonDict = {**HIDDEN, "group": "Data"}
_OUTPUT: JsonDict = {**HIDDEN, "group": "Output"}


class CaptionConfig(GenerationConfig):
    """Caption the images that a JSON file lists, or random queries of a prepared data set.

    The input is a list of {style, image | image_hash, reference?, question? | clue?}. Writes a JSON file with the model's name,
    its fingerprint (a hash of weights, precision and prompt format) and the results in the order of the input. Rerun an
    interrupted command to resume.

        icltool caption --input images.json --model blip2-opt-2.7b-coco
        icltool caption --input images.json --model checkpoints/captioner-...
        icltool caption --samples 20 --model idefics-9b --dataset coco2017 --shots 8
    """

    input: Path | None = Field(
        default=None,
        description="JSON file: a list of {style, image | image_hash, reference?, question? | clue?}",
        json_schema_extra={**_DATA, "daily": True},
    )
    samples: int | None = Field(
        default=None,
        ge=1,
        description="number of random queries of a prepared data set to caption, instead of --input",
        json_schema_extra={"group": "Data", "daily": True},
    )
    images: Path | None = Field(
        default=None,
        description="folder of the images: paths in --input are relative to it, and each image_hash is the file HASH.jpg in it",
        json_schema_extra={**_DATA, "daily": True, "default": "the folder of --input"},
    )
    output: Path | None = Field(
        default=None,
        description="JSON file to write",
        json_schema_extra={
            **_OUTPUT,
            "daily": True,
            "default": "named after the input and the model, in the workspace's folder captions",
        },
    )
    description: str | None = Field(
        default=None,
        description="name of the model in the output",
        json_schema_extra={**_OUTPUT, "default": "that of --model"},
    )
    task: str | None = Field(
        default=None,
        description="task: caption, style, vqa or inference",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "default": "by the fields style, question and clue of --input; for --samples the first task of the data set",
        },
    )
    styles: Path | None = Field(
        default=None,
        description="text file of the known styles, one per line",
        json_schema_extra={**_DATA, "default": "those of the model, else of the data set"},
    )
    any_style: bool = Field(
        default=False, description="accept styles that are in no list of known styles", json_schema_extra=_DATA
    )
    dataset: str | None = Field(
        default=None,
        description="prepared data set of samples, demonstrations and styles",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "complete": "datasets",
            "default": "the only prepared data set",
        },
    )
    shots: int = Field(
        default=0,
        ge=0,
        description="demonstrations per prompt, drawn at random from the index set",
        json_schema_extra={"group": "Demonstrations", "daily": True, "aliases": ["--num-fewshot"]},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="random seed of the samples and demonstrations",
        json_schema_extra={"group": "Demonstrations", "daily": True},
    )
    overwrite: bool = Field(
        default=False, description="replace an existing output", json_schema_extra={**_OUTPUT, "daily": True}
    )
