"""COCO 2017 captions, from the official files. One example per image, sorted by image id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from icltool.contracts import Example, PreparedSplit, Progress, ReadReport
from icltool.datasets.images import expect_images, expect_readable, sample
from icltool.datasets.near_duplicates import FILE, read_groups
from icltool.datasets.official import (
    Caption,
    Picture,
    counted,
    entries,
    expect_kind,
    few,
    one_line,
    read_annotations,
    repeated,
)
from icltool.datasets.places import chosen_root, first_holding
from icltool.errors import DataError

#: Our split name -> (part of the file names, images in the official split).
SPLITS = {"train": ("train", 118_287), "validation": ("val", 5_000)}
_OTHER = {"train": "val", "val": "train"}
_ARCHIVES = "get annotations_trainval2017.zip, train2017.zip and val2017.zip from cocodataset.org and unpack them there"


@dataclass(frozen=True)
class CaptionSplit:
    """One split as its captions file has it: images with captions by ascending id, and what was left out."""

    path: Path
    folder: Path
    pictures: list[Picture]
    captions: dict[int, list[str]]
    remarks: tuple[str, ...]


class Coco2017Reader:
    """Reads `mscoco2017/{train2017,val2017,annotations/captions_{train,val}2017.json}`.

    `root` may be the folder that holds `mscoco/mscoco2017` or `mscoco2017`, or that folder itself; without it,
    the environment variable COCO_PATH. All captions of an image are kept as references, ordered by annotation id; the
    first is label and retrieval text. Line breaks and repeated blanks in captions become single blanks. An image's
    group comes from the optional file `near_duplicates.json` beside the captions files.
    """

    name = "coco2017"
    tasks = ("caption",)

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        return self._check(root, task, verify, None)

    def verify(self, root: Path | None, task: str, progress: Progress) -> ReadReport:
        """`check` with every image opened, and progress shown."""
        return self._check(root, task, True, progress)

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. Each split is parsed when it is its turn."""
        base = self.find(root)
        for name, (part, _) in SPLITS.items():
            with progress.task(f"reading {_captions_file(base, part).name}", 1, "files") as ticker:
                split = read_captions(base, part)
                ticker.advance()
            groups = read_groups(base / "annotations", part)
            yield PreparedSplit(name, len(split.pictures), _examples(split, groups))

    def find(self, root: Path | None) -> Path:
        """The folder `mscoco2017`. DataError when there is none."""
        start = chosen_root(root, ("COCO_PATH",), self.name)
        candidates = [start / "mscoco" / "mscoco2017", start / "mscoco2017", start]
        base = first_holding(candidates, ["annotations", "train2017", "val2017"])
        if base is None:
            raise DataError(
                f"no COCO 2017 in {start}: neither mscoco/mscoco2017, mscoco2017 nor the folder itself has "
                "annotations, train2017 and val2017",
                _ARCHIVES,
            )
        return base

    def _check(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        base = self.find(root)
        wanted = [f"annotations/captions_{part}2017.json" for part, _ in SPLITS.values()]
        wanted += [f"{part}2017" for part, _ in SPLITS.values()]
        missing = [name for name in wanted if not (base / name).exists()]
        if missing:
            raise DataError(f"{base} lacks {', '.join(missing)}", _ARCHIVES)
        remarks: list[str] = []
        for part, official in SPLITS.values():
            split = read_captions(base, part)
            read_groups(base / "annotations", part)
            names = [picture.file_name for picture in split.pictures]
            expect_images(split.path, split.folder, names, base / f"{_OTHER[part]}2017", names, _archive(part))
            check_decoding(split.folder, names, _archive(part), verify, progress)
            remarks += split.remarks
            if len(split.pictures) != official:
                count = counted(len(split.pictures), "captioned image")
                remarks.append(f"{split.path.name} has {count}; the official split has {official:,}")
        files = [_captions_file(base, part) for part, _ in SPLITS.values()]
        groups = base / "annotations" / FILE
        return ReadReport((*files, groups) if groups.exists() else tuple(files), tuple(remarks))


def check_decoding(folder: Path, names: list[str], get: str, verify: bool, progress: Progress | None) -> None:
    """Opens all images (`verify`), or the sample."""
    if not verify:
        expect_readable(folder, sample(names, folder.name), get)
    elif progress is None:
        expect_readable(folder, names, get)
    else:
        with progress.task(f"opening {folder.name}", len(names), "images") as ticker:
            expect_readable(folder, names, get, ticker)


def read_captions(base: Path, part: str) -> CaptionSplit:
    """Reads the captions file of "train" or "val". DataError that names the file and what is wrong with it."""
    path = _captions_file(base, part)
    get = f"put {path.name} of annotations_trainval2017.zip there"
    found = read_annotations(path, get)
    expect_kind(path, found, "captions", get)
    pictures = entries(path, found, "images", Picture)
    captions = entries(path, found, "annotations", Caption)
    found.clear()
    twice = repeated([picture.id for picture in pictures])
    if twice is not None:
        raise DataError(f"{path} lists image {twice} more than once", get)
    by_image: dict[int, list[Caption]] = {picture.id: [] for picture in pictures}
    unknown = sorted({c.image_id for c in captions if c.image_id not in by_image})
    if unknown:
        raise DataError(f"{path} has captions of {counted(len(unknown), 'image')} not in its list: {few(unknown)}", get)
    empty = 0
    for caption in captions:
        if caption.caption.strip():
            by_image[caption.image_id].append(caption)
        else:
            empty += 1
    kept = sorted(picture for picture in pictures if by_image[picture.id])
    if not kept:
        raise DataError(f"{path} has no captions", get)
    remarks = [f"{path.name}: {counted(empty, 'empty caption')} left out"] if empty else []
    if len(kept) < len(pictures):
        remarks.append(f"{path.name}: {counted(len(pictures) - len(kept), 'image')} without captions left out")
    texts = {p.id: [one_line(caption.caption) for caption in sorted(by_image.pop(p.id))] for p in kept}
    return CaptionSplit(path, base / f"{part}2017", kept, texts, tuple(remarks))


def _examples(split: CaptionSplit, groups: dict[int, str]) -> Iterator[Example]:
    for picture in split.pictures:
        captions = tuple(split.captions[picture.id])
        yield Example(
            id=picture.id,
            image=str(split.folder / picture.file_name),
            image_id=picture.id,
            text=captions[0],
            label=captions[0],
            references=captions,
            group=groups.get(picture.id, ""),
        )


def _captions_file(base: Path, part: str) -> Path:
    return base / "annotations" / f"captions_{part}2017.json"


def _archive(part: str) -> str:
    return f"get {part}2017.zip and annotations_trainval2017.zip from cocodataset.org and unpack them again"
