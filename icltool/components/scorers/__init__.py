"""Scorers, which rate a demonstration sequence for a query."""
