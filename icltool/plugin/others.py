"""The commands of other packages, which are looked for without loading a plugin where none is installed."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


def others_commands() -> dict[str, str]:
    """Name -> one line for the overview, of the commands that other packages register. Plugins are loaded where there are
    any."""
    if not _plugins_are_installed():
        return {}
    from icltool.plugin.manager import load_registry

    commands = [item for item in load_registry().found if item.kind == "commands" and item.distribution != "icltool"]
    return {item.name: item.registration.summary for item in commands}


def _plugins_are_installed() -> bool:
    """Whether a distribution on the path has entry points for icltool. The files say so at once; importlib.metadata takes as
    long to be imported as all else that `icltool --help` needs."""
    for folder in map(Path, sys.path):
        for metadata in (*folder.glob("*.dist-info"), *folder.glob("*.egg-info")):
            with suppress(OSError, UnicodeDecodeError):
                if "[icltool]" in (metadata / "entry_points.txt").read_text(encoding="utf-8"):
                    return True
    return False
