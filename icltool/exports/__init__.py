"""What `icltool export` writes, where an export is more than a few lines."""
