"""COCO 2014 captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from icltool.components.datasets.coco import CocoReader
from icltool.contracts import Source, SourceFile


class Coco2014Reader(CocoReader):
    """COCO captions of the 2014 release: `mscoco2014/{train2014,val2014,annotations/captions_{train,val}2014.json}`
    below `root` or COCO_PATH, or the official zip archives. All captions of an image are its references."""

    name = "coco2014"
    source = Source(
        "cocodataset.org",
        "annotations: CC BY 4.0; images: the terms of Flickr",
        (
            SourceFile("annotations_trainval2014.zip", "241 MB", "captions_{train,val}2014.json"),
            SourceFile("train2014.zip", "13 GB", "82,783 images"),
            SourceFile("val2014.zip", "6 GB", "40,504 images"),
        ),
    )
    year = 2014
    official: ClassVar[Mapping[str, int]] = {"train": 82_783, "validation": 40_504}
