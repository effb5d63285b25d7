"""List what lies in the workspace, and remove what is no longer needed."""

RANK = 130
