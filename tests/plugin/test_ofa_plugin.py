"""plugins/icltool-ofa: listed at no cost, clear where no weights are, and its own tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin.distributions import CHECKOUT, ask, own_tests, plugin_metadata

SOURCE = CHECKOUT / "plugins" / "icltool-ofa"
NAMES = {"tiny-ofa", "ofa-tiny", "ofa-medium", "ofa-base", "ofa-large", "ofa-huge", "ofa-distilled"}


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    return plugin_metadata(SOURCE, tmp_path)


def test_listing_its_models_imports_nothing_heavy(metadata: Path) -> None:
    code = (
        "found = [f for f in load_registry().found if f.distribution == 'icltool-ofa']\n"
        "heavy = [m for m in ('torch', 'transformers', 'safetensors', 'PIL') if m in sys.modules]\n"
        "answer = [[f.registration.name for f in found], heavy, load_registry().broken]"
    )
    names, heavy, broken = ask(code, metadata, SOURCE)
    assert (set(names), heavy, broken) == (NAMES, [], [])


@pytest.mark.parametrize("name", ["ofa-base", "ofa-distilled"])
def test_without_weights_the_error_says_what_to_do(metadata: Path, name: str) -> None:
    code = (
        "from icltool.errors import IclError\n"
        "try:\n"
        f"    load_registry().create('models', {name!r})\n"
        "except IclError as error:\n"
        "    answer = [type(error).__name__, error.message, error.hint]"
    )
    kind, message, hint = ask(code, metadata, SOURCE)
    assert (kind, message.count("\n")) == ("ConfigError", 0)
    assert name in message
    assert "--model-path" in hint


@pytest.mark.slow
def test_its_own_tests_pass() -> None:
    told = own_tests(SOURCE)
    passed = re.search(r"(\d+) passed", told)
    assert passed is not None
    assert int(passed.group(1)) >= 80
