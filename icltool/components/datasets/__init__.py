"""Data sets: readers of official files, and what they check before anything is written."""
