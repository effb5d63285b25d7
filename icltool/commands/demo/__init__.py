"""Run every step on a small embedded data set, without downloads."""

RANK = 100
