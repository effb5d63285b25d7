"""LIVE: learnable in-context vectors (arXiv 2406.13185)."""
