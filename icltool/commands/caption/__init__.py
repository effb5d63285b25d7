"""Write captions of images that a file lists."""

RANK = 60
