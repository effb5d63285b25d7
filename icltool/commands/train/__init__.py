"""Train a selector on the generated sequences."""

RANK = 40
