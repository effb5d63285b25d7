"""Check a data set and convert it to icltool's format."""

RANK = 10
