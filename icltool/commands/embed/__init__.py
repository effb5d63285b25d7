"""Encode images and texts for retrieval."""

RANK = 20
