"""plugins/icltool-openflamingo: listed at no cost, clear where open_flamingo is missing, and its own tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin.distributions import CHECKOUT, ask, ask_anew, own_tests_anew

SOURCE = CHECKOUT / "plugins" / "icltool-openflamingo"
NAMES = ["openflamingo-3b", "openflamingo-9b", "openflamingo-9b-v1"]


def test_listing_its_models_imports_nothing_heavy(site: Path) -> None:
    code = (
        "found = [f for f in load_registry().components if f.distribution == 'icltool-openflamingo']\n"
        "heavy = [m for m in ('torch', 'transformers', 'open_clip', 'open_flamingo', 'einops') if m in sys.modules]\n"
        "answer = [[f.registration.name for f in found], heavy, load_registry().broken]"
    )
    assert ask_anew(code, site) == [NAMES, [], []]


def test_without_open_flamingo_the_error_gives_the_command(site: Path) -> None:
    code = (
        "from icltool.errors import IclError\n"
        "sys.modules['open_flamingo'] = None\n"
        "try:\n"
        "    load_registry().create('models', 'openflamingo-3b')\n"
        "except IclError as error:\n"
        "    answer = [type(error).__name__, error.message, error.hint]"
    )
    kind, message, hint = ask(code, site)
    assert (kind, message.count("\n")) == ("PluginError", 0)
    assert "pip install --no-deps open_flamingo==2.0.1" in hint


@pytest.mark.external
def test_its_own_tests_pass() -> None:
    lines = own_tests_anew(SOURCE)
    if "pip cannot get them" in lines:
        pytest.skip("open_flamingo is not installed, and pip cannot get it")
    passed = re.search(r"(\d+) passed", lines)
    assert passed is not None
    assert int(passed.group(1)) >= 40
