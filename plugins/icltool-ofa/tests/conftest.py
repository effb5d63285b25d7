"""Fixtures: the tiny network, which no test may change, and its inputs."""

from __future__ import annotations

import pytest
from icltool_ofa.network import OFAForConditionalGeneration
from tiny_ofa import array, build
from torch import Tensor


@pytest.fixture(scope="session")
def tiny() -> OFAForConditionalGeneration:
    return build()


@pytest.fixture
def prompt() -> dict[str, Tensor]:
    """A batch of two: prompts of 7 and 5 tokens, images of 64 x 64 pixels."""
    return {"input_ids": array("input/input_ids"), "patch_images": array("input/patch_images")}
