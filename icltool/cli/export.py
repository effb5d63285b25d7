"""`icltool export`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.export import ExportConfig

HELP = """Write sequences, selectors and results in formats that other programs read.

Reads what the other stages wrote; changes none of it.

    icltool export results
"""

command = stage_command("export", ExportConfig, HELP)
