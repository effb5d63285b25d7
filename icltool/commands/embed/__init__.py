"""Encode its images and texts for retrieval."""

RANK = 20
