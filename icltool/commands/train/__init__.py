"""Train a selector, an intervention or a captioner."""

RANK = 40
