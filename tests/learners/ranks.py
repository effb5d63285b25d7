"""A training in two processes that the test starts itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def both_ranks(module: str, arguments: Sequence[str]) -> list[int]:
    """How both ended: `python -m module` with these arguments, once for each rank."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    command = [sys.executable, "-m", module, *arguments]
    processes = [subprocess.Popen(command, env={**shared, "LOCAL_RANK": str(rank)}) for rank in (0, 1)]
    return [process.wait(timeout=300) for process in processes]
