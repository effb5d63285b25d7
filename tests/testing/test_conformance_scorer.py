"""The built-in scorers pass the suite of scorers."""

from __future__ import annotations

import pytest

from icltool.plugin.manager import component
from icltool.testing import check_scorer


@pytest.mark.parametrize(
    ("name", "task"), [("infoscore", "caption"), ("infoscore", "vqa"), ("cosine", "caption"), ("vqa-accuracy", "vqa")]
)
def test_a_built_in_scorer_conforms(name: str, task: str) -> None:
    check_scorer(lambda: component("scorers", name), task=task)


def test_the_cider_scorer_conforms() -> None:
    check_scorer(component("scorers", "cider"))
