"""`icltool report`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.report import ReportConfig

HELP = """Show evaluations, or generated sequences, on a page for the browser.

One HTML file that holds everything and needs no network: tables with intervals and paired tests, plots, and a gallery of
queries with their demonstrations, prompts and answers, to search, filter and set side by side. Reads what the other
stages wrote; changes none of it.

    icltool report

    icltool report evaluations/coco2017-... other-workspace/evaluations/vqav2-... --output compared.html

    icltool report --sequences sequences/coco2017-caption-... --max-queries 100
"""

command = stage_command("report", ReportConfig, HELP)
