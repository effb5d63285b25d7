"""`icltool evaluate`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.evaluate import EvaluateConfig

HELP = """Answer the queries with the demonstrations that each method chooses, and score the answers.

Reads the prepared data set, its embeddings and the trained selector (as far as the methods need them), writes
predictions, exact prompts, chosen demonstrations and results. Shows figures with 95 % intervals, paired differences
between the methods, and what lies behind them: copied answers, gains over zero-shot, leaks, the effect of order.

    icltool evaluate --method random --method i2i --shots 1,2,4

    icltool evaluate --method zero-shot,random,i2i --seed 0,1,2 --permutations 4

    icltool evaluate --plan i2i-plan.json --model idefics-9b-instruct

What stands in for demonstrations (live, from `icltool train live`) is compared with them, and what each costs per query:

    icltool evaluate --method zero-shot,random,live --shots 1,4,8
"""

command = stage_command("evaluate", EvaluateConfig, HELP)
