"""Ask a model about images in the browser."""

RANK = 90
