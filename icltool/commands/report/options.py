"""Options of `icltool report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from icltool.config.base import HIDDEN, StageConfig


class ReportConfig(StageConfig):
    """Show evaluations, or generated sequences, on a page for the browser.

    One HTML file that holds everything and needs no network: tables with intervals and paired tests, plots, and a gallery of
    queries with their demonstrations, prompts and answers, to search, filter and set side by side. Reads what the other
    stages wrote; changes none of it.

        icltool report

        icltool report evaluations/coco2017-... other-workspace/evaluations/vqav2-... --output compared.html

        icltool report --sequences sequences/coco2017-caption-... --max-queries 100
    """

    evaluations: tuple[Path, ...] = Field(
        default=(),
        description="evaluation folders (or their names in the workspace) to show together, of any data sets, models and "
        "tasks; none: every evaluation in the workspace",
        json_schema_extra={"argument": True, "metavar": "EVALUATION"},
    )
    sequences: Path | None = Field(
        default=None,
        description="show this file of generated sequences and their scores instead, also while it is being generated",
        json_schema_extra=HIDDEN,
    )
    output: Path | None = Field(
        default=None,
        description="HTML file to write; none: report.html, or one named after the sequences file, in the workspace's folder "
        "exports",
        json_schema_extra=HIDDEN,
    )
    title: str = Field(default="", description="heading of the page; none: the data sets' names")
    max_queries: int = Field(
        default=400,
        ge=-1,
        description="queries in the gallery (tables are of all): those that most of the evaluations have, else drawn by seed; "
        "-1 all",
    )
    max_mb: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="size of the page in MB (10^6 bytes) that images may fill: they are made smaller, and in the end left "
        "out",
    )
    images: bool = Field(default=True, description="show images")
    seed: int = Field(default=0, ge=0, description="decides which queries are drawn")
    overwrite: bool = Field(
        default=False, description="replace an output that is there already", json_schema_extra=HIDDEN
    )
