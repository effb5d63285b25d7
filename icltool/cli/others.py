"""The commands of other packages."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


def others_commands() -> dict[str, str]:
    """Name -> one line for the overview, of the commands that other packages register. Loads plugins only if there are any."""
    if not plugins_are_installed():
        return {}
    from icltool.plugin.manager import load_registry

    commands = [
        item for item in load_registry().components if item.kind == "commands" and item.distribution != "icltool"
    ]
    return {item.name: item.registration.summary for item in commands}


def plugins_are_installed() -> bool:
    """Whether a distribution on the path has entry points for icltool. Reading the files is quicker than importing
    importlib.metadata."""
    for folder in map(Path, sys.path):
        for metadata in (*folder.glob("*.dist-info"), *folder.glob("*.egg-info")):
            with suppress(OSError):
                if b"[icltool]" in (metadata / "entry_points.txt").read_bytes():
                    return True
    return False
