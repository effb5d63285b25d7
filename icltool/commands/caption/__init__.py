"""Write captions of pictures that a file lists."""

RANK = 60
