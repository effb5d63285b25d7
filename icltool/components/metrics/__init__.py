"""Metrics: what an answer is worth against its references."""
