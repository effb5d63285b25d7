"""`icltool prepare`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.prepare import PrepareConfig

HELP = """Read a data set into records: every file checked first, one format for all data sets.

Reads the official files of the data set (or makes them, for `shapes`), writes a prepared data set into the workspace.

    icltool prepare shapes
"""

command = stage_command("prepare", PrepareConfig, HELP)
