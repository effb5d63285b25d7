"""`icltool train`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.train import TrainConfig

HELP = """Train a selector on the generated sequences.

Reads a sequences file and the embeddings of the index set, writes checkpoints and their card.

    icltool train lever-lm
"""

command = stage_command("train", TrainConfig, HELP)
