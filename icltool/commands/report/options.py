"""Options of `icltool report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from icltool.config.base import HIDDEN, StageConfig


class ReportConfig(StageConfig):
    """Show evaluations, or generated sequences, on a page for the browser.

    The page has tables with confidence intervals and paired tests, plots, and a searchable gallery of queries with their
    demonstrations, prompts and answers. Reads what other commands wrote; writes a single HTML file that needs no network.

        icltool report
        icltool report coco2017-caption-... vqav2-vqa-... --output compared.html
        icltool report --sequences sequences/coco2017-caption-... --max-queries 100
    """

    evaluations: tuple[Path, ...] = Field(
        default=(),
        description="evaluation folders to compare, or their names in the workspace; data sets, models and tasks may differ",
        json_schema_extra={
            "group": "Data",
            "argument": True,
            "metavar": "EVALUATION",
            "default": "all evaluations of the workspace",
        },
    )
    sequences: Path | None = Field(
        default=None,
        description="file of generated sequences to show instead of evaluations; it may still be growing",
        json_schema_extra={**HIDDEN, "group": "Data", "daily": True},
    )
    output: Path | None = Field(
        default=None,
        description="HTML file to write",
        json_schema_extra={
            **HIDDEN,
            "group": "Output",
            "daily": True,
            "default": "report.html, or named after the sequences file, in the workspace's folder exports",
        },
    )
    title: str = Field(
        default="",
        description="heading of the page",
        json_schema_extra={"group": "Output", "daily": True, "default": "the names of the data sets"},
    )
    max_queries: int = Field(
        default=400,
        ge=-1,
        description="queries in the gallery, first those that most evaluations share, then random ones; -1 for all. Tables "
        "always cover all queries",
        json_schema_extra={"group": "Output", "daily": True},
    )
    max_mb: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="maximum size of the images on the page, in MB (10^6 bytes); beyond it images are shrunk, then left out",
        json_schema_extra={"group": "Output", "daily": True},
    )
    images: bool = Field(default=True, description="show images", json_schema_extra={"group": "Output", "daily": True})
    seed: int = Field(
        default=0, ge=0, description="random seed of the gallery's queries", json_schema_extra={"group": "Output"}
    )
    overwrite: bool = Field(
        default=False,
        description="replace an existing output",
        json_schema_extra={**HIDDEN, "group": "Output", "daily": True},
    )
