"""Metrics, which score an answer against its references."""
