"""COCO 2017 captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from icltool.components.datasets.coco import CocoReader
from icltool.contracts import Source, SourceFile


class Coco2017Reader(CocoReader):
    """COCO captions of the 2017 release: `mscoco2017/{train2017,val2017,annotations/captions_{train,val}2017.json}`
    below `root` or COCO_PATH, or the official zip archives. All captions of an image are its references."""

    name = "coco2017"
    source = Source(
        "cocodataset.org",
        "annotations: CC BY 4.0; images: the terms of Flickr",
        (
            SourceFile("annotations_trainval2017.zip", "241 MB", "captions_{train,val}2017.json"),
            SourceFile("train2017.zip", "18 GB", "118,287 images"),
            SourceFile("val2017.zip", "1 GB", "5,000 images"),
        ),
    )
    year = 2017
    official: ClassVar[Mapping[str, int]] = {"train": 118_287, "validation": 5_000}
