"""Scorers: what a demonstration sequence is worth to a query."""
