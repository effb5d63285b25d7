"""The built-in metrics pass the suite of metrics."""

from __future__ import annotations

import pytest

from icltool.plugin.manager import component
from icltool.testing import check_metric


@pytest.mark.parametrize("name", ["vqa-accuracy", "word-accuracy"])
def test_a_built_in_metric_conforms(name: str) -> None:
    check_metric(lambda: component("metrics", name))


def test_cider_conforms() -> None:
    check_metric(lambda: component("metrics", "cider"))
