"""For the tests of plugins that are collected with the project's own: each plugin is on the path, and its components are
registered while its tests run, whether it is installed or not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
for place in (ROOT, ROOT / "plugins" / "icltool-ofa"):  # what their modules import when they are collected
    if str(place) not in sys.path:
        sys.path.append(str(place))

import pytest  # noqa: E402

from tests.plugin.distributions import joined, ofa_registered  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ofa_registered(tmp_path_factory.mktemp("installed")) as plugin, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", joined([plugin]))
        yield
