"""Options of `icltool caption`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from icltool.config.base import HIDDEN
from icltool.config.generation import GenerationConfig


class CaptionConfig(GenerationConfig):
    """Write captions of images that a JSON file lists, or of random evaluation examples.

    The file is a list of {style, image | image_hash, reference?, question? | clue?}. Writes a JSON file with model_name,
    model_revision (model.fingerprint(): a hash of weights, precision and prompt format) and results, in the order of the input.
    What is finished outlives an interruption: the same command goes on from there.

        icltool caption --input images.json --model blip2-opt-2.7b --model-path checkpoints/captioner-...

        icltool caption --samples 20 --dataset personality-captions --model ofa-base

    Any model can be asked; one that learns from demonstrations gets some from a prepared data set:

        icltool caption --input images.json --model idefics-9b --dataset coco2017 --shots 8
    """

    input: Path | None = Field(
        default=None,
        description="JSON file: a list of {style, image | image_hash, reference?, question? | clue?}",
        json_schema_extra=HIDDEN,
    )
    samples: int | None = Field(
        default=None, ge=1, description="in place of --input: so many random evaluation examples of a prepared data set"
    )
    images: Path | None = Field(
        default=None,
        description="folder that the paths in --input are relative to, and that holds HASH.jpg for each image_hash; none: the "
        "folder of --input",
        json_schema_extra=HIDDEN,
    )
    output: Path | None = Field(
        default=None,
        description="file to write; none: named after what is captioned and the model, in the workspace's folder captions",
        json_schema_extra=HIDDEN,
    )
    description: str | None = Field(
        default=None, description="stands in the file in place of the model's name", json_schema_extra=HIDDEN
    )
    task: str | None = Field(
        default=None,
        description="what is asked: caption, style, vqa or inference; none: by the entries' fields (style, question, clue), of "
        "samples the data set's first task",
    )
    styles: Path | None = Field(
        default=None,
        description="text file with the known styles, one a line; none: those of the model, else of the prepared data set",
        json_schema_extra=HIDDEN,
    )
    any_style: bool = Field(default=False, description="let styles pass that are in no list", json_schema_extra=HIDDEN)
    dataset: str | None = Field(
        default=None,
        description="prepared data set of samples, demonstrations and styles; none: the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    shots: int = Field(
        default=0, ge=0, description="demonstrations per prompt, drawn at random from the data set's index set"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="decides samples and demonstrations")
    overwrite: bool = Field(default=False, description="replace an output that is there", json_schema_extra=HIDDEN)
