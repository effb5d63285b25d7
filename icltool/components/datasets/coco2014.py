"""COCO 2014 captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from icltool.components.datasets.coco import CocoReader


class Coco2014Reader(CocoReader):
    """COCO captions of the 2014 release; see CocoReader."""

    name = "coco2014"
    year = 2014
    official: ClassVar[Mapping[str, int]] = {"train": 82_783, "validation": 40_504}
