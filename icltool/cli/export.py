"""`icltool export`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.export import ExportConfig

HELP = """Write sequences, selectors, fine-tuned models, results, plans and chats in formats that other programs read.

Reads what the other stages wrote; changes none of it.

    icltool export results
    icltool export plan --method i2i --shots 4
    icltool export chat --format openai --images data
    icltool export model --output my-captioner
    icltool export model --format tar.gz --configuration no-paths
"""

command = stage_command("export", ExportConfig, HELP)
