"""COCO captions in Karpathy's split of the 2014 images. One example per image, sorted by image id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from icltool.components.datasets.coco2014_images import IMAGE_ARCHIVES, OTHER_PART, PARTS, Coco2014Images, find_images
from icltool.components.datasets.images import check_decoding, expect_images
from icltool.components.datasets.karpathy_files import LAVIS, WHOLE, KarpathyImage, read_lavis, read_whole
from icltool.components.datasets.near_duplicates import groups_file, read_groups
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.places import chosen_root, find_file, first_holding, on_disk, there
from icltool.components.datasets.reader import FileReader, captioned, left_out
from icltool.contracts import Example, Options, PreparedSplit, Progress, ReadReport, Source, SourceFile
from icltool.errors import DataError

#: Images of the official split by Karpathy's names; "train" and "restval" together are 113,287.
OFFICIAL = {"train": 82_783, "restval": 30_504, "val": 5_000, "test": 5_000}
_QUERIES = {"test": "test", "validation": "val", "val": "val"}
_ARCHIVE = "caption_datasets.zip"
_HINT = (
    f"put {WHOLE} there, or {_ARCHIVE} from Karpathy's page (packed or unpacked), or LAVIS' {', '.join(LAVIS.values())}"
)


@dataclass(frozen=True)
class Places:
    """`files` are Karpathy's one file under "whole", or LAVIS' files by Karpathy's split name; `images` are COCO 2014's."""

    files: dict[str, Path]
    images: Coco2014Images


@dataclass(frozen=True)
class KarpathySplit:
    """The images of one of our splits by ascending id, without empty captions, and remarks on what was left out."""

    images: list[KarpathyImage]
    remarks: tuple[str, ...]


class KarpathyOptions(Options):
    """Which images are in the index set, and which are the queries."""

    restval: bool = Field(True, description="add restval to train, which gives 113,287 instead of 82,783 images")
    split: Literal["test", "validation", "val"] = Field("test", description="Karpathy split that queries are read from")


class CocoKarpathyReader(FileReader):
    """Reads Karpathy's `dataset_coco.json`, or LAVIS' `coco_karpathy_{train,val,test}.json`, and the images of COCO 2014.

    The files are looked for in `coco-karpathy`, `karpathy`, `mscoco`, `mscoco/mscoco2014`, `mscoco2014` and `coco` below
    `root`, in their folders `annotations`, and in `root` itself; without `root`, below the environment variable COCO_PATH.
    dataset_coco.json takes precedence; caption_datasets.zip and the zip archives of the images need not be unpacked. Both
    forms give the same examples: an image's captions are its references in the order of the file, and the first is also
    the label and the example's text.

    With `restval` (the default) "train" is Karpathy's train and restval together, 113,287 images; without, 82,783. LAVIS'
    train file holds both: restval images are the ones of val2014. `split` says which images are the queries, the prepared
    split "validation": Karpathy's "test" (the default, on which captioning results are reported), or "validation"; each
    has 5,000 images. Where "test" are the queries, Karpathy's val split is our "development", by which captioners choose
    their best weights; LAVIS' file of it may be missing. An image's group comes from `near_duplicates.json` beside the file,
    whose keys "train", "val" and "development" are our splits.
    """

    image_namespace = "coco"
    name = "coco-karpathy"
    source = Source(
        "cs.stanford.edu/people/karpathy/deepimagesent (captions) and cocodataset.org (images)",
        "annotations: CC BY 4.0; images: the terms of Flickr",
        (
            SourceFile("dataset_coco.json", "", "in caption_datasets.zip"),
            SourceFile("train2014.zip", "13 GB", "82,783 images"),
            SourceFile("val2014.zip", "6 GB", "40,504 images"),
        ),
    )
    tasks = ("caption",)

    options_model = KarpathyOptions

    def __init__(self, options: KarpathyOptions) -> None:
        queries = _QUERIES[options.split]
        self._parts = {"train": ("train", "restval") if options.restval else ("train",), "validation": (queries,)}
        if queries == "test":
            self._parts["development"] = ("val",)

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""
        places = self.find(root)
        with progress.task("reading Karpathy's split", 1, "files") as ticker:
            splits = self._splits(places)
            ticker.advance()
        for name in list(splits):
            split = splits.pop(name)
            groups = read_groups(_first(places), name)
            yield PreparedSplit(name, len(split.images), _examples(split, places.images, groups))

    def find(self, root: Path | None) -> Places:
        """The paths of files and images. Raises DataError if one is missing."""
        start = chosen_root(root, ("COCO_PATH",), self.name)
        names = ("coco-karpathy", "karpathy", "mscoco/mscoco2014", "mscoco2014", "mscoco", "coco", ".")
        folders = [start / name / deeper for name in names for deeper in (".", "annotations")]
        needed = {part: LAVIS[part] for part in ("train", *self._parts["validation"])}
        lavis_files = needed | {part: LAVIS[part] for part in self._parts.get("development", ())}
        base = first_holding(folders, [WHOLE])
        if base is not None:
            files = {"whole": base / WHOLE}
        else:
            base = first_holding(folders, list(needed.values())) or first_holding(folders, [], [_ARCHIVE])
            if base is None:
                raise _nothing(start, folders)
            files = {part: base / name for part, name in lavis_files.items() if (base / name).exists()}
            missing = [name for part, name in needed.items() if part not in files]
            if files and missing:
                raise DataError(f"{base} lacks {', '.join(missing)}", _HINT)
            files = files or there({"whole": find_file(base, WHOLE, [_ARCHIVE])})
        return Places(files, find_images(start, base, "Karpathy's split"))

    def _splits(self, places: Places) -> dict[str, KarpathySplit]:
        """The images of our splits; "development" only if the files have it. Raises DataError if splits share an image or
        list one twice."""
        split_of_part = {part: name for name, parts in self._parts.items() for part in parts}
        if "whole" in places.files:
            all_images = read_whole(places.files["whole"], frozenset(split_of_part))
        else:
            all_images = read_lavis(places.files, frozenset(split_of_part))
        listed: dict[str, list[KarpathyImage]] = {name: [] for name in self._parts}
        seen: dict[int, str] = {}
        for image in all_images:
            name = split_of_part[image.split]
            if image.id in seen:
                where = name if seen[image.id] == name else f"{seen[image.id]} and {name}"
                parts = ("whole", *self._parts[name], *self._parts[seen[image.id]])
                files = " and ".join(str(path) for part, path in places.files.items() if part in parts)
                raise DataError(f"{files}: image {image.id} is listed twice, in {where}", "get the official file again")
            seen[image.id] = name
            listed[name].append(image)
        return {
            name: _ordered(name, images, _first(places))
            for name, images in listed.items()
            if images or name != "development"
        }

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        places = self.find(root)
        splits = self._splits(places)
        remarks: list[str] = []
        for name, split in splits.items():
            folders: dict[str, list[str]] = {part: [] for part in PARTS.values()}
            for image in split.images:
                folders[_part_of(image, _first(places))].append(PurePosixPath(image.file).name)
            for part, names in folders.items():
                folder, other = places.images.folders[part], places.images.folders[OTHER_PART[part]]
                expect_images(_first(places), folder, names, other, names, IMAGE_ARCHIVES)
                check_decoding(folder, names, f"{part}2014", IMAGE_ARCHIVES, verify, progress)
            remarks += [*split.remarks, self._counts(name, split.images)]
        if "development" in self._parts and "development" not in splits:
            remarks.append(f"no split 'development': {_lacking(places)}")
        for name in ("train", "validation", "development"):
            read_groups(_first(places), name)
        files = on_disk([*places.files.values(), *groups_file(_first(places))])
        return ReadReport((*files, *places.images.files), tuple(remarks))

    def _counts(self, name: str, images: list[KarpathyImage]) -> str:
        """The remark on which set is used, and whether it is the official one."""
        parts = self._parts[name]
        if name == "train":
            subset = "with restval" if "restval" in parts else "without restval"
        else:
            subset = f"Karpathy's {parts[0]} split"
        official = sum(OFFICIAL[part] for part in parts)
        difference = "" if len(images) == official else f"; the official one has {official:,}"
        return f"{name}: {counted(len(images), 'image')}, {subset}{difference}"


def _lacking(places: Places) -> str:
    """Which file lacks Karpathy's val split."""
    path = places.files.get("whole", places.files.get("val"))
    return (
        f"{_first(places).parent} has no {LAVIS['val']}" if path is None else f"{path} has no images of the split val"
    )


def _first(places: Places) -> Path:
    return next(iter(places.files.values()))


def _ordered(name: str, images: list[KarpathyImage], path: Path) -> KarpathySplit:
    texts = [tuple(one_line(text) for text in image.captions if text.strip()) for image in images]
    captioned_images = [image._replace(captions=t) for image, t in zip(images, texts, strict=True) if t]
    if not captioned_images:
        raise DataError(f"{path} has no captions for {name}", _HINT)
    empty = sum(len(image.captions) for image in images) - sum(map(len, texts))
    remarks = left_out(name, empty, len(images) - len(captioned_images))
    return KarpathySplit(sorted(captioned_images, key=lambda image: image.id), remarks)


def _part_of(image: KarpathyImage, path: Path) -> str:
    """ "train" or "val": the release's folder that the image lies in."""
    for part in PARTS.values():
        if image.file.startswith(f"{part}2014/"):
            return part
    raise DataError(f"{path} puts image {few([image.file])} in neither train2014 nor val2014", "get the official file")


def _examples(split: KarpathySplit, images: Coco2014Images, groups: dict[int, str]) -> Iterator[Example]:
    for image in split.images:
        folder = images.folders["train" if image.file.startswith("train2014/") else "val"]
        file = str(folder / PurePosixPath(image.file).name)
        yield captioned(image.id, file, image.id, image.captions, groups.get(image.id, ""))


def _nothing(start: Path, folders: list[Path]) -> DataError:
    """The error if the split has no file; it names a file that looks like one."""
    truths = sorted(file for folder in folders if folder.is_dir() for file in folder.glob("coco_karpathy_*_gt.json"))
    if truths:
        return DataError(
            f"no Karpathy split in {start}: {truths[0]} holds only the references of LAVIS' evaluation, without images",
            "put coco_karpathy_train.json, coco_karpathy_val.json and coco_karpathy_test.json, which LAVIS downloads, there, "
            f"or {WHOLE}",
        )
    return DataError(f"no Karpathy split in {start}: neither {WHOLE}, {_ARCHIVE} nor LAVIS' files", _HINT)
