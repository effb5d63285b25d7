"""Print the exact prompts of some queries, without running a model."""

RANK = 45
