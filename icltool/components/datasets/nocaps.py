"""NoCaps: images of objects that COCO's captions do not name; queries for demonstrations from COCO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from icltool.components.datasets.entries import listed, text_of, whole
from icltool.components.datasets.official import few, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.datasets.reader import captioned, left_out
from icltool.contracts import Source, SourceFile
from icltool.errors import DataError

OFFICIAL = 4_500
_FILE = "nocaps_val_4500_captions.json"
_IMAGES = ("images", "val_imgs", "val")


class _Image(NamedTuple):
    """An entry of "images"."""

    id: int
    file: str
    domain: str


class NocapsReader(PublishedReader):
    """Reads `nocaps_val_4500_captions.json`, in --root or in `annotations` there, and its images in `images`, `val_imgs` or
    `val`; without --root, below the environment variable NOCAPS_PATH.

    There are queries only: take the demonstrations from COCO, as in `evaluate --dataset nocaps --index-dataset
    coco-karpathy`. Figures are broken down by domain: in-domain, near-domain and out-domain. Captions of the test split are
    not public.
    """

    image_namespace = "openimages"
    queries_only = True
    name = "nocaps"
    tasks = ("caption",)
    source = Source(
        "nocaps.org",
        "CC BY 2.0, as Open Images",
        (SourceFile(_FILE, "", "4,500 images with ten captions each"), SourceFile("images", "", "the images")),
    )
    title = "NoCaps"
    variables = ("NOCAPS_PATH",)
    folders = ("nocaps", "nocaps/annotations", "annotations", "")
    noun = "image"

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases, hint = self.bases(root), self.source.hint()
        path = self.file(bases, _FILE)
        folder = self.images(bases, _IMAGES, [f"{name}.zip" for name in _IMAGES])
        images = listed(path, ("images",), _image, "an image", hint)
        captions: dict[int, list[str]] = {image.id: [] for image in images}
        unknown: list[str] = []
        for image_id, caption in listed(path, ("annotations",), _caption, "a caption", hint):
            captions.get(image_id, unknown).append(caption if image_id in captions else str(image_id))
        if unknown:
            raise DataError(f"{path} has captions of images that it does not list: {few(unknown)}", hint)
        texts = {image: tuple(text for text in map(one_line, captions[image]) if text) for image in captions}
        examples = [
            captioned(image.id, str(folder / image.file), image.id, texts[image.id], aspects={"domain": image.domain})
            for image in images
            if texts[image.id]
        ]
        empty = sum(len(captions[image]) - len(texts[image]) for image in captions)
        remarks = left_out("validation", empty, len(images) - len(examples))
        yield Part("validation", (path,), folder, examples, len(images), OFFICIAL, remarks)


def _image(record: Mapping[str, Any], _: int) -> _Image:
    return _Image(whole(record["id"]), text_of(record["file_name"]), text_of(record.get("domain", "")))


def _caption(record: Mapping[str, Any], _: int) -> tuple[int, str]:
    return whole(record["image_id"]), text_of(record["caption"])
