"""plugins/icltool-ofa: listed at no cost, and clear where no weights are. Its own tests are collected with these."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.distributions import ask, ask_anew

NAMES = {"tiny-ofa", "ofa-tiny", "ofa-medium", "ofa-base", "ofa-large", "ofa-huge", "ofa-distilled"}


def test_listing_its_models_imports_nothing_heavy(site: Path) -> None:
    code = (
        "found = [f for f in load_registry().components if f.distribution == 'icltool-ofa']\n"
        "heavy = [m for m in ('torch', 'transformers', 'safetensors', 'PIL') if m in sys.modules]\n"
        "answer = [[f.registration.name for f in found], heavy, load_registry().broken]"
    )
    names, heavy, broken = ask_anew(code, site)
    assert (set(names), heavy, broken) == (NAMES, [], [])


@pytest.mark.parametrize(("name", "error"), [("ofa-base", "MissingWeightsError"), ("ofa-distilled", "ConfigError")])
def test_without_weights_the_error_says_what_to_do(site: Path, name: str, error: str) -> None:
    code = (
        "from icltool.errors import IclError\n"
        "try:\n"
        f"    load_registry().create('models', {name!r})\n"
        "except IclError as error:\n"
        "    answer = [type(error).__name__, error.message, error.hint]"
    )
    kind, message, hint = ask(code, site)
    assert (kind, message.count("\n")) == (error, 0)
    assert name in message
    assert "--model-path" in hint
