"""Caption the images that a file lists."""

RANK = 60
