"""Show evaluations or sequences on a page for the browser."""

RANK = 80
