"""Options of `icltool app`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from icltool.config.base import HIDDEN
from icltool.config.generation import GenerationConfig


class AppConfig(GenerationConfig):
    """Ask a model about images in the browser.

    The page shows evaluation examples of a prepared data set and takes images of your own; choose a style, or demonstrations
    (at random, or from the index set), and see the answer, the exact prompt and what people wrote. It is served to this
    machine alone, and loads nothing from the network. Ctrl-C ends it. Needs gradio: pip install 'icltool[app]'.

        icltool app --model tiny-idefics --dataset shapes --shots 4

        icltool app --model checkpoints/captioner-... --port 8000 --no-browser
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set of examples and demonstrations; none: the only one there is, or none at all",
        json_schema_extra={"complete": "datasets"},
    )
    task: str | None = Field(
        default=None,
        description="what is asked: caption, style, vqa or inference; none: the data set's first task, else caption",
    )
    styles: Path | None = Field(
        default=None,
        description="text file with the known styles, one a line; none: those of the model, else of the prepared data set",
        json_schema_extra=HIDDEN,
    )
    shots: int = Field(default=0, ge=0, le=16, description="random demonstrations to begin with")
    seed: int = Field(default=0, ge=0, lt=2**32, description="decides random demonstrations")
    host: str = Field(
        default="127.0.0.1",
        description="address to serve at; any but this machine's own lets others use the model",
        json_schema_extra=HIDDEN,
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="port; none: the first free one from 7860", json_schema_extra=HIDDEN
    )
    browser: bool = Field(default=True, description="open the page in the browser", json_schema_extra=HIDDEN)
