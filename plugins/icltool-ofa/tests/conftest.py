"""Fixtures: the tiny network, which no test may change, and its inputs. Its modules are imported late: the process that hands
out the tests reads this file too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from icltool_ofa.network import OFAForConditionalGeneration
    from torch import Tensor


@pytest.fixture(scope="session")
def tiny() -> OFAForConditionalGeneration:
    from tiny_ofa import build

    return build()


@pytest.fixture
def prompt() -> dict[str, Tensor]:
    """A batch of two: prompts of 7 and 5 tokens, images of 64 x 64 pixels."""
    from tiny_ofa import array

    return {"input_ids": array("input/input_ids"), "patch_images": array("input/patch_images")}
