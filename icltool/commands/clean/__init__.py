"""List the files of the workspace, or remove some."""

RANK = 130
