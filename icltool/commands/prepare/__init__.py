"""Read a data set into records: checked, in one format."""

RANK = 10
