"""The images of COCO 2014, which several data sets share: unpacked, or in the official archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icltool.components.datasets.places import archives_of, find_folder, first_holding, folder_of, there
from icltool.errors import DataError

#: Our split name -> part of the names of files and folders.
PARTS = {"train": "train", "validation": "val"}
OTHER_PART = {"train": "val", "val": "train"}
IMAGE_ARCHIVES = "get train2014.zip and val2014.zip from cocodataset.org and put them in mscoco/mscoco2014"


@dataclass(frozen=True)
class Coco2014Images:
    """`folders` are the image folders of "train" and "val", within their archives if these are not unpacked.

    `files` are the archives, and the folder of the images if it is not below the root. Records hold paths of images, so
    the data set must be prepared again when these change.
    """

    folders: Mapping[str, Path]
    files: tuple[Path, ...]


#: Folders in which releases and other programs (LAVIS: coco/images) have the images.
_BELOW = ("mscoco/mscoco2014", "mscoco2014", ".", "mscoco", "images", "coco/mscoco2014", "coco/images", "coco")


def find_images(start: Path, beside: Path, title: str) -> Coco2014Images:
    """The images in `mscoco/mscoco2014`, `mscoco2014`, `images` or `coco/images` below `start`, beside the folder `beside`,
    or below COCO_PATH.

    Raises DataError, which names the data set (`title`) and the folders searched, if one or both image folders are missing.
    """
    coco = folder_of("COCO_PATH")
    starts = [start, beside.parent, coco]
    below = [s / name for s in starts if s is not None for name in _BELOW]
    base = first_holding(
        below, [f"{part}2014" for part in PARTS.values()], [f"{part}2014.zip" for part in PARTS.values()]
    )
    if base is None:
        raise DataError(
            f"no COCO 2014 images for {title}: no train2014 or val2014, nor their zip archives, in {_searched(starts)}",
            f"set COCO_PATH to the folder that holds the two, or {IMAGE_ARCHIVES}",
        )
    folders = {part: find_folder(base, f"{part}2014", [f"{part}2014.zip"]) for part in PARTS.values()}
    missing = [f"{part}2014" for part, folder in folders.items() if folder is None]
    if missing:
        raise DataError(f"{base} lacks {', '.join(missing)}", IMAGE_ARCHIVES)
    image_folders = there(folders)
    outside = () if base.is_relative_to(start) else (base,)
    return Coco2014Images(image_folders, (*outside, *archives_of(image_folders.values())))


def _searched(starts: Sequence[Path | None]) -> str:
    """The folders that were searched."""
    *others, coco = starts
    folders = [str(folder) for folder in others if folder is not None]
    if coco is not None:
        folders.append(f"{coco} (COCO_PATH{'' if coco.is_dir() else ', not a folder'})")
    return f"{' or '.join(folders)}, nor below in {', '.join(name for name in _BELOW if name != '.')}"


def image_name(part: str, image_id: int) -> str:
    """The file name of a COCO 2014 image."""
    return f"COCO_{part}2014_{image_id:012d}.jpg"
