"""`icltool generate`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.generate import GenerateConfig

HELP = """Search, for each anchor, the demonstration sequences that help the model most.

Reads the prepared data set (and embeddings, for similarity samplers), writes a sequences file. A run that was stopped
goes on where it was when the same command is given again.

    icltool generate --model idefics-9b --anchors 5000 --shots 2
"""

command = stage_command("generate", GenerateConfig, HELP)
