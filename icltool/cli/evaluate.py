"""`icltool evaluate`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.evaluate import EvaluateConfig

HELP = """Answer the queries with the demonstrations that each method chooses, and score the answers.

Reads the prepared data set, its embeddings and the trained selector (as far as the methods need them), writes
predictions, exact prompts, chosen demonstrations and results.

    icltool evaluate --method random --method i2i --shots 1,2,4
"""

command = stage_command("evaluate", EvaluateConfig, HELP)
