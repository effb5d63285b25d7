"""Flickr30k captions in Karpathy's split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from icltool.components.datasets.karpathy_files import (
    FLICKR_LAVIS,
    FLICKR_WHOLE,
    KarpathyImage,
    read_lavis,
    read_whole,
)
from icltool.components.datasets.official import one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.datasets.reader import captioned, left_out
from icltool.contracts import Options, Source, SourceFile
from icltool.errors import DataError

#: Images of the official split.
OFFICIAL = {"train": 29_000, "val": 1_014, "test": 1_000}
_ARCHIVE, _IMAGES = "caption_datasets.zip", "flickr30k-images"


class FlickrOptions(Options):
    """The queries."""

    queries: Literal["test", "val"] = Field("test", description="Karpathy split that queries are read from")


class Flickr30kReader(PublishedReader):
    """Reads Karpathy's `dataset_flickr30k.json` (or caption_datasets.zip), or LAVIS' `flickr30k_{train,val,test}.json`, and the
    images in `flickr30k-images`, packed or not, in --root or in `flickr30k` there; without --root, below the environment
    variable FLICKR30K_PATH.

    The index set is train, the queries are test. An image's id is the number in its file name. All captions are references,
    the first is also label and text. Where the queries are test, val is our "development".
    """

    name = "flickr30k"
    tasks = ("caption",)
    options_model = FlickrOptions
    source = Source(
        "cs.stanford.edu/people/karpathy/deepimagesent (captions) and shannon.cs.illinois.edu/DenotationGraph (images)",
        "of the images, the terms of Flickr: for research and teaching only",
        (
            SourceFile(FLICKR_WHOLE, "", f"in {_ARCHIVE}"),
            SourceFile(_IMAGES, "4 GB", "31,783 images"),
        ),
    )
    title = "Flickr30k"
    variables = ("FLICKR30K_PATH",)
    folders = ("flickr30k", "flickr30k/annotations", "annotations", "")
    noun = "image"

    def __init__(self, options: FlickrOptions) -> None:
        self._parts = {"train": "train", "validation": options.queries}
        if options.queries == "test":
            self._parts["development"] = "val"

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases = self.bases(root)
        folder = self.images(bases, [_IMAGES, "images"], [f"{_IMAGES}.zip", "flickr30k_images.zip"])
        whole = self.find(bases, FLICKR_WHOLE, [_ARCHIVE])
        for name, split in self._parts.items():
            images, path = self._images(bases, whole, split)
            if not images and name == "development":
                continue
            yield _part(name, path, folder, images, OFFICIAL[split])

    def _images(self, bases: Sequence[Path], whole: Path | None, split: str) -> tuple[list[KarpathyImage], Path]:
        """The images of a split, and the file that they are from."""
        if whole is not None:
            return read_whole(whole, frozenset({split}), "flickr30k"), whole
        path = self.find(bases, FLICKR_LAVIS[split])
        if path is None and split != "val":
            raise DataError(
                f"no Flickr30k in {bases[-1]}: neither {FLICKR_WHOLE} nor LAVIS' {FLICKR_LAVIS[split]}",
                self.source.hint(),
            )
        if path is None:
            return [], bases[-1]
        return read_lavis({split: path}, frozenset({split})), path


def _part(name: str, path: Path, folder: Path, images: Sequence[KarpathyImage], official: int) -> Part:
    texts = [tuple(one_line(text) for text in image.captions if text.strip()) for image in images]
    examples = [
        captioned(image.id, str(folder / PurePosixPath(image.file).name), image.id, captions)
        for image, captions in zip(images, texts, strict=True)
        if captions
    ]
    empty = sum(len(image.captions) for image in images) - sum(map(len, texts))
    remarks = left_out(name, empty, len(images) - len(examples))
    return Part(name, (path,), folder, examples, len(images), official, remarks)
