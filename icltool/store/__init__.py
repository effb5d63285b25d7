"""The workspace's files: their layout, crash-safe writing, and reading."""
