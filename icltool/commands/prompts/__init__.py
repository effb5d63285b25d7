"""Print the exact prompts of some queries, without running the model."""

RANK = 45
