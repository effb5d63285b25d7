"""COCO captions of both releases, from the official files. One example per image, sorted by image id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from icltool.components.datasets.coco2014_images import OTHER_PART, PARTS
from icltool.components.datasets.images import check_decoding, expect_images
from icltool.components.datasets.near_duplicates import groups_file, read_groups
from icltool.components.datasets.official import (
    Caption,
    Image,
    counted,
    entries,
    expect_kind,
    few,
    one_line,
    read_annotations,
    repeated,
)
from icltool.components.datasets.places import (
    archives_of,
    chosen_root,
    find_file,
    find_folder,
    first_holding,
    on_disk,
    there,
)
from icltool.components.datasets.reader import FileReader, captioned, left_out, unofficial
from icltool.contracts import Example, PreparedSplit, Progress, ReadReport
from icltool.errors import DataError


@dataclass(frozen=True)
class Places:
    """Captions files and image folders by part ("train", "val"); within their archives if these are not unpacked."""

    captions: Mapping[str, Path]
    images: Mapping[str, Path]


@dataclass(frozen=True)
class CaptionSplit:
    """A split of a captions file: images with captions by ascending id, and remarks on what was left out."""

    images: list[Image]
    captions: dict[int, list[str]]
    remarks: tuple[str, ...]


class CocoReader(FileReader):
    """Reads `mscoco{YEAR}/{train{YEAR},val{YEAR},annotations/captions_{train,val}{YEAR}.json}`.

    `root` may be the folder that holds `mscoco/mscoco{YEAR}` or `mscoco{YEAR}`, or that folder itself; without it,
    the environment variable COCO_PATH. If files are not unpacked, the official archives annotations_trainval{YEAR}.zip,
    train{YEAR}.zip and val{YEAR}.zip are read, in that folder or directly below it. All captions of an image are its
    references, ordered by annotation id; the first is also the label and the example's text. Line breaks and repeated
    spaces in captions become single spaces. An image's group comes from the optional file `near_duplicates.json` beside the
    captions files.
    """

    image_namespace = "coco"
    name: str
    tasks = ("caption",)
    #: Year of the release.
    year: ClassVar[int]
    #: Our split name -> captioned images in the official split.
    official: ClassVar[Mapping[str, int]]

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. Splits are parsed one after another."""
        places = self._places(self.find(root))
        for name, part in PARTS.items():
            path = places.captions[part]
            with progress.task(f"reading {path.name}", 1, "files") as ticker:
                split = read_captions(path, self._get(part))
                ticker.advance()
            groups = read_groups(path, name)
            yield PreparedSplit(name, len(split.images), _examples(split, places.images[part], groups))

    def find(self, root: Path | None) -> Path:
        """The folder `mscoco{YEAR}`. Raises DataError if there is none."""
        start = chosen_root(root, ("COCO_PATH",), self.name)
        own = f"mscoco{self.year}"
        candidates = [start / "mscoco" / own, start / own, start, start / "mscoco"]
        names = ["annotations", *(f"{part}{self.year}" for part in PARTS.values())]
        base = first_holding(candidates, names, self._archives())
        if base is None:
            raise DataError(
                f"no COCO {self.year} in {start}: neither mscoco/{own}, {own}, the folder itself nor "
                f"mscoco has {names[0]}, {names[1]} and {names[2]}, or their zip archives",
                self._hint(),
            )
        return base

    def _places(self, base: Path) -> Places:
        parts = PARTS.values()
        files = {part: f"annotations/captions_{part}{self.year}.json" for part in parts}
        captions = {part: find_file(base, files[part], [f"annotations_trainval{self.year}.zip"]) for part in parts}
        images = {part: find_folder(base, f"{part}{self.year}", [f"{part}{self.year}.zip"]) for part in parts}
        missing = [files[part] for part in parts if captions[part] is None]
        missing += [f"{part}{self.year}" for part in parts if images[part] is None]
        if missing:
            raise DataError(f"{base} lacks {', '.join(missing)}", self._hint())
        return Places(there(captions), there(images))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        places = self._places(self.find(root))
        remarks: list[str] = []
        for name, part in PARTS.items():
            path, folder = places.captions[part], places.images[part]
            split = read_captions(path, self._get(part))
            read_groups(path, name)
            names = [image.file_name for image in split.images]
            get = f"get {part}{self.year}.zip and annotations_trainval{self.year}.zip from cocodataset.org again"
            expect_images(path, folder, names, places.images[OTHER_PART[part]], names, get)
            check_decoding(folder, names, f"{part}{self.year}", get, verify, progress)
            remarks += split.remarks
            remarks += unofficial(path.name, len(split.images), "captioned image", self.official[name])
        files = on_disk([*places.captions.values(), *groups_file(*places.captions.values())])
        return ReadReport((*files, *archives_of(places.images.values())), tuple(remarks))

    def _archives(self) -> list[str]:
        return [f"{what}{self.year}.zip" for what in ("annotations_trainval", *PARTS.values())]

    def _hint(self) -> str:
        first, second, third = self._archives()
        return f"get {first}, {second} and {third} from cocodataset.org and put them there; there is no need to unpack them"

    def _get(self, part: str) -> str:
        return f"put captions_{part}{self.year}.json of annotations_trainval{self.year}.zip there"


def read_captions(path: Path, hint: str) -> CaptionSplit:
    """Reads a captions file. DataError that names the file and what is wrong with it; `get` is the hint."""
    content = read_annotations(path, hint)
    expect_kind(path, content, "captions", hint)
    images = entries(path, content, "images", Image)
    captions = entries(path, content, "annotations", Caption)
    content.clear()
    twice = repeated([image.id for image in images])
    if twice is not None:
        raise DataError(f"{path} lists image {twice} more than once", hint)
    by_image: dict[int, list[Caption]] = {image.id: [] for image in images}
    unknown = sorted({c.image_id for c in captions if c.image_id not in by_image})
    if unknown:
        raise DataError(
            f"{path} has captions of {counted(len(unknown), 'image')} not in its list: {few(unknown)}", hint
        )
    empty = 0
    for caption in captions:
        if caption.caption.strip():
            by_image[caption.image_id].append(caption)
        else:
            empty += 1
    captioned_images = sorted(image for image in images if by_image[image.id])
    if not captioned_images:
        raise DataError(f"{path} has no captions", hint)
    texts = {p.id: [one_line(caption.caption) for caption in sorted(by_image.pop(p.id))] for p in captioned_images}
    return CaptionSplit(captioned_images, texts, left_out(path.name, empty, len(images) - len(captioned_images)))


def _examples(split: CaptionSplit, folder: Path, groups: dict[int, str]) -> Iterator[Example]:
    for image in split.images:
        captions, group = tuple(split.captions[image.id]), groups.get(image.id, "")
        yield captioned(image.id, str(folder / image.file_name), image.id, captions, group)
