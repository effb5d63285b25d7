"""Show versions, devices, memory, and what could be installed for what."""

RANK = 120
