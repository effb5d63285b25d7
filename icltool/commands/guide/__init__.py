"""Read the manual, one topic at a time."""

RANK = 95
