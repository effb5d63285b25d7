"""Check versions, devices, memory, packages and the workspace."""

RANK = 120
