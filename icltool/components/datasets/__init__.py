"""Data sets: readers of published files and of users' own, which check everything before anything is written."""
