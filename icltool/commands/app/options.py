"""Options of `icltool app`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from icltool.config.base import HIDDEN
from icltool.config.generation import GenerationConfig


class AppConfig(GenerationConfig):
    """Ask a model about images in the browser.

    The page shows the queries of a prepared data set, or takes your own images. Choose a style or demonstrations, and see the
    answer, the exact prompt and the references. The page is served to this machine only and loads nothing from the network;
    Ctrl-C ends it. It needs gradio: pip install 'icltool[app]'.

        icltool app --model tiny-idefics --dataset shapes --shots 4
        icltool app --model checkpoints/captioner-... --port 8000 --no-browser
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set of queries and demonstrations",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "complete": "datasets",
            "default": "the only prepared data set, if any",
        },
    )
    task: str | None = Field(
        default=None,
        description="task: caption, style, vqa or inference",
        json_schema_extra={"group": "Data", "daily": True, "default": "the first task of the data set, else caption"},
    )
    styles: Path | None = Field(
        default=None,
        description="text file of the known styles, one per line",
        json_schema_extra={**HIDDEN, "group": "Data", "default": "those of the model, else of the data set"},
    )
    shots: int = Field(
        default=0,
        ge=0,
        le=16,
        description="random demonstrations to start with",
        json_schema_extra={"group": "Demonstrations", "daily": True, "aliases": ["--num-fewshot"]},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="random seed of the demonstrations",
        json_schema_extra={"group": "Demonstrations"},
    )
    host: str = Field(
        default="127.0.0.1",
        description="address to serve the page at; any other than this machine's own lets others use the model",
        json_schema_extra={**HIDDEN, "group": "Output"},
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port to serve the page at",
        json_schema_extra={**HIDDEN, "group": "Output", "daily": True, "default": "the first free port from 7860"},
    )
    browser: bool = Field(
        default=True,
        description="open the page in the browser",
        json_schema_extra={**HIDDEN, "group": "Output", "daily": True},
    )
