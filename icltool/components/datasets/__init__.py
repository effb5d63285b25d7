"""Data sets: readers of published files and of users' own files, which check everything before anything is written."""
