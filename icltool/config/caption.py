"""Options of `icltool caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from icltool.config.generation import GenerationConfig

_HIDDEN: dict[str, Any] = {"hidden_in_artefact": True}


class CaptionConfig(GenerationConfig):
    """Which pictures are captioned, by which model, and where the captions go."""

    input: Path | None = Field(
        default=None,
        description="JSON file: a list of {style, image | image_hash, reference?, question? | clue?}",
        json_schema_extra=_HIDDEN,
    )
    samples: int | None = Field(
        default=None, ge=1, description="in place of --input: so many random evaluation examples of a prepared data set"
    )
    images: Path | None = Field(
        default=None,
        description="folder that the paths in --input are relative to, and that holds HASH.jpg for each image_hash; none: the "
        "folder of --input",
        json_schema_extra=_HIDDEN,
    )
    output: Path | None = Field(
        default=None,
        description="file to write; none: named after what is captioned and the model, in the workspace's folder captions",
        json_schema_extra=_HIDDEN,
    )
    description: str | None = Field(
        default=None, description="stands in the file in place of the model's name", json_schema_extra=_HIDDEN
    )
    task: str | None = Field(
        default=None,
        description="what is asked: caption, style, vqa or inference; none: by the entries' fields (style, question, clue), of "
        "samples the data set's first task",
    )
    styles: Path | None = Field(
        default=None,
        description="text file with the known styles, one a line; none: those of the model, else of the prepared data set",
        json_schema_extra=_HIDDEN,
    )
    any_style: bool = Field(default=False, description="let styles pass that are in no list", json_schema_extra=_HIDDEN)
    dataset: str | None = Field(
        default=None,
        description="prepared data set of samples, demonstrations and styles; none: the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    shots: int = Field(
        default=0, ge=0, description="demonstrations per prompt, drawn at random from the data set's index set"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="decides samples and demonstrations")
    overwrite: bool = Field(default=False, description="replace an output that is there", json_schema_extra=_HIDDEN)
