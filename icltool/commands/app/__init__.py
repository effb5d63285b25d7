"""Ask a model about pictures in the browser."""

RANK = 90
