"""See the whole pipeline work on a small made-up world."""

RANK = 100
