"""The topics plugins and python name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import icltool
from icltool import testing
from icltool.plugin.registration import KINDS

GUIDE = Path(__file__).parents[2] / "icltool" / "guide"
PLUGINS = (GUIDE / "plugins.md").read_text(encoding="utf-8")
PYTHON = (GUIDE / "python.md").read_text(encoding="utf-8")


def test_there_is_a_row_for_every_hook() -> None:
    assert re.findall(r"^\| `icltool_(\w+)` \|", PLUGINS, flags=re.MULTILINE) == list(KINDS)


def test_every_suite_and_everything_that_makes_its_input_is_named() -> None:
    named = set(re.findall(r"`(\w+)`", PLUGINS + PYTHON))
    assert set(testing.__all__) <= named


def test_the_names_of_tables_are_public() -> None:
    public = {*dir(icltool), *testing.__all__}
    for row in re.findall(r"^\|.*\|$", PLUGINS + PYTHON, flags=re.MULTILINE):
        names = re.findall(r"`([A-Z]\w+|(?:check|make)_\w+)`", row)
        assert set(names) <= public, row
