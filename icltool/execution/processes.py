"""Which of the processes of a distributed training this is."""

from __future__ import annotations

import os

from icltool.errors import ConfigError


def is_leader() -> bool:
    """Whether this is process 0 of a distributed training, or the only one; launchers say so by these variables."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        value = os.environ.get(name)
        if value is not None:
            if not value.isdigit():
                raise ConfigError(f"environment variable {name} is {value!r}, not a number", f"unset {name}")
            return int(value) == 0
    return True
