"""The workspace's files: where they are, how they are written so that no kill harms them, and how they are read."""
