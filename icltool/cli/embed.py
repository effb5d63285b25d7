"""`icltool embed`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.embed import EmbedConfig

HELP = """Encode the images and texts of the prepared data set.

Reads the prepared data set, writes one embeddings file per split. A run that was stopped goes on where it was when the
same command is given again.

    icltool embed --encoder vit-l-14
"""

command = stage_command("embed", EmbedConfig, HELP)
