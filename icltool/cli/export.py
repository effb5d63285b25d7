"""`icltool export`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.export import ExportConfig

HELP = """Write sequences, selectors, results, plans and chats in formats that other programs read.

Reads what the other stages wrote; changes none of it.

    icltool export results
    icltool export plan --method i2i --shots 4
    icltool export chat --format openai --images data
"""

command = stage_command("export", ExportConfig, HELP)
