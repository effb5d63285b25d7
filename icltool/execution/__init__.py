"""Runs units of work and shows their progress."""
