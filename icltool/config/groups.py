"""The groups of options in the help of a command."""

from __future__ import annotations

from typing import Literal, get_args

Group = Literal[
    "Data",
    "Model",
    "Demonstrations",
    "Training",
    "Generation",
    "Speed and memory",
    "Several devices",
    "Output",
    "Every command",
]
#: In the order of the help.
GROUPS: tuple[Group, ...] = get_args(Group)
