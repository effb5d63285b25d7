"""`icltool train`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.train import TrainConfig

HELP = """Train a selector of demonstrations, or what stands in for them.

Selectors (lever-lm, pointer) learn from a sequences file and the embeddings of the index set. What stands in for
demonstrations (live, mimic, lora, task-vector, function-vector, icv-pca) learns from examples and the LVLM itself, and needs
neither. Writes checkpoints and their card; `icltool plugins show learners NAME` lists a learner's options.

    icltool train lever-lm

    icltool train live --model idefics-9b --option shots=32
"""

command = stage_command("train", TrainConfig, HELP)
