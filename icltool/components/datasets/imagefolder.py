"""Folders of images, one for each class: train/CLASS/*, val/CLASS/*."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from icltool.components.datasets.folder import image_codes
from icltool.components.datasets.held_out import (
    SHARE,
    SPLIT_NAMES,
    SplitOrShare,
    held_out_remark,
    query_names,
    share_of,
    test_remark,
)
from icltool.components.datasets.images import check_decoding
from icltool.components.datasets.labelled_rows import as_sets
from icltool.components.datasets.official import counted, few
from icltool.components.datasets.places import chosen_root
from icltool.components.datasets.reader import FileReader
from icltool.components.tasks import task_named
from icltool.contracts import (
    Example,
    Options,
    PreparedSplit,
    Progress,
    ReadReport,
    Task,
    group_code,
    keyed_generator,
    read_whole,
)
from icltool.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_NUMBER = re.compile(r"^\d+\.(?=\S)")


class ImageFolderOptions(Options):
    """The splits, and the names of the classes."""

    validation: SplitOrShare | None = Field(
        None,
        description=f"folder of the queries, or the share of each class to hold out for them; default: val, test, or {SHARE}",
    )
    names: Path | None = Field(
        None,
        description="file of the classes' names: one on each line, in the order of the folders, or lines of FOLDER, tab, NAME",
    )
    raw_names: bool = Field(
        False, description="take names of folders as they are: 001.Black_footed_Albatross is not Black footed Albatross"
    )
    per_class: int | None = Field(
        None, ge=1, description="images of each class in the index set, drawn by seed; default: all"
    )
    seed: int = Field(0, description="random seed of the images that are held out, and of those of `per_class`")

    @field_validator("validation")
    @classmethod
    def _check_validation(cls, validation: SplitOrShare | None) -> SplitOrShare | None:
        if validation is not None:
            share_of(validation)
        return validation


@dataclass(frozen=True)
class _Content:
    """The images by split and folder of the class, the folders' names, and remarks."""

    root: Path
    files: dict[str, dict[str, list[Path]]]
    names: dict[str, str]
    remarks: tuple[str, ...]


class ImageFolderReader(FileReader):
    """Reads the layout of ImageNet: `train/CLASS/*.jpg` and `val/CLASS/*.jpg` (or validation, test) in --root; or `CLASS/*.jpg`
    alone. The folders of classes hold images only.

    Classes are named after their folders, in sorted order, with blanks for underscores and without a number in front
    ("001.Name"), or by the file `names`; folders of one name are one class. Without a folder of queries, a share of each
    class is held out, drawn by `seed`. Files of equal bytes are one image.
    """

    name = "imagefolder"
    tasks = ("classification",)
    options_model = ImageFolderOptions

    def __init__(self, options: ImageFolderOptions) -> None:
        self.options = options
        self.share = None if options.validation is None else share_of(options.validation)

    def named_after(self, root: Path | None) -> str:
        """See NamedAfterFiles: the folder's name."""
        return _required_root(root).resolve().name

    def definition(self, task: str) -> Task | None:
        """See DefinesTasks: the task without a text."""
        return task_named(task).without_text()

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        content = self._content(_required_root(root))
        for split, by_class in content.files.items():
            images = [str(path.relative_to(content.root)) for paths in by_class.values() for path in paths]
            check_decoding(content.root, images, split, "restore the image, or remove it", verify, progress)
        _, remarks = self._splits(content)
        read = [] if self.options.names is None else [self.options.names.expanduser().absolute()]
        folders = sorted({path.parent for by_class in content.files.values() for p in by_class.values() for path in p})
        return ReadReport((*folders, *read), (*content.remarks, *remarks))

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""
        for name, examples in self._splits(self._content(_required_root(root)))[0].items():
            yield PreparedSplit(name, len(examples), iter(examples))

    def _content(self, root: Path) -> _Content:
        folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."}
        train = next((folders[name] for name in query_names("train") if name in folders), None)
        remarks: list[str] = []
        sources = {"train": train or root}
        if train is not None and self.share is None:
            queries = self._queries(root, folders, remarks)
            sources |= {"validation": queries} if queries else {}
        elif train is None and any(name in SPLIT_NAMES for name in folders):
            raise DataError(f"{root} has no folder train", "put the images of the index set into train/CLASS")
        files = {split: _by_class(folder, remarks) for split, folder in sources.items()}
        classes = sorted({name for by_class in files.values() for name in by_class})
        if unseen := sorted(set(classes) - set(files["train"])):
            remarks.append(f"{root.name}: train has no image of {few(unseen)}")
        return _Content(root, files, self._names(classes, remarks), tuple(remarks))

    def _queries(self, root: Path, folders: Mapping[str, Path], remarks: list[str]) -> Path | None:
        """The folder of the queries; None if there is none, and the user names none."""
        chosen = self.options.validation
        if chosen is not None:
            name = str(chosen)
            if name not in folders:
                raise DataError(f"{root} has no folder {name} of queries", f"its folders: {few(list(folders))}")
            return folders[name]
        for name in (*query_names("validation"), *query_names("test")):
            if name in folders:
                remarks += [test_remark(root.name)] if SPLIT_NAMES[name] == "test" else []
                return folders[name]
        return None

    def _names(self, classes: Sequence[str], remarks: list[str]) -> dict[str, str]:
        """The name of the class of each folder."""
        if self.options.names is not None:
            return _names_in(self.options.names.expanduser().absolute(), classes)
        if self.options.raw_names:
            return {name: name for name in classes}
        names = {name: " ".join(_NUMBER.sub("", name).replace("_", " ").split()) or name for name in classes}
        if changed := [f"{folder} as {name}" for folder, name in names.items() if folder != name]:
            remarks.append(f"names of classes: {few(changed)} (--option raw_names=true takes the folders' names)")
        return names

    def _splits(self, content: _Content) -> tuple[dict[str, list[Example]], list[str]]:
        """The examples by split, and remarks."""
        paths = [str(path) for by_class in content.files.values() for p in by_class.values() for path in p]
        codes = image_codes(content.root, paths)
        choices = tuple(dict.fromkeys(content.names[folder] for folder in sorted(content.names)))
        if len(choices) < 2:
            raise DataError(f"{content.root} has one class, {choices[0]}", "a classification needs two or more")
        splits: dict[str, list[Example]] = {"train": [], "validation": []}
        for split, by_class in content.files.items():
            for folder, files in by_class.items():
                label = content.names[folder]
                examples = [_example(content.root, path, codes[str(path)], label, choices) for path in files]
                if len(content.files) > 1:
                    splits[split] += examples
                else:
                    held = self._held_out(examples)
                    splits["train"] += [e for e in examples if e.image_id not in held]
                    splits["validation"] += [e for e in examples if e.image_id in held]
        remarks = [held_out_remark(content.root.name, splits["validation"])] if len(content.files) == 1 else []
        if self.options.per_class is not None:
            splits["train"] = self._limited(splits["train"], self.options.per_class)
        return as_sets(splits), remarks

    def _held_out(self, examples: Sequence[Example]) -> set[int]:
        """The ids of a class's images that are held out: a share of them, but not all."""
        images = sorted({e.image_id for e in examples}, key=lambda i: self._key("datasets.held-out", i))
        count = max(1, round((self.share or SHARE) * len(images)))
        return set(images[: min(count, len(images) - 1)])

    def _limited(self, examples: Sequence[Example], count: int) -> list[Example]:
        by_class: dict[str, list[Example]] = {}
        for e in examples:
            by_class.setdefault(e.label, []).append(e)
        kept = {
            e.id
            for of_class in by_class.values()
            for e in sorted(of_class, key=lambda e: self._key("datasets.per-class", e.id))[:count]
        }
        return [e for e in examples if e.id in kept]

    def _key(self, purpose: str, code: int) -> tuple[float, int]:
        return keyed_generator(self.options.seed, purpose, code).random(), code


def _required_root(root: Path | None) -> Path:
    if root is None:
        raise DataError("data set 'imagefolder' needs a folder", "name the folder that holds train and val with --root")
    return chosen_root(root, (), "imagefolder")


def _by_class(folder: Path, remarks: list[str]) -> dict[str, list[Path]]:
    """The images of each class in the folder of a split. Raises DataError if it is not folders of images alone."""
    classes: dict[str, list[Path]] = {}
    others: list[str] = []
    for of_class in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        for path in sorted(of_class.iterdir()):
            if path.name[0] == ".":
                continue
            if path.is_dir():
                raise DataError(
                    f"{of_class} holds a folder, {path.name}, but a class holds images only",
                    "the layout is SPLIT/CLASS/IMAGE; move the images up",
                )
            if path.suffix.lower() in SUFFIXES:
                classes.setdefault(of_class.name, []).append(path)
            else:
                others.append(path.name)
    if not classes:
        flat = any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
        what = "holds images, but no folders of classes" if flat else "holds no folders of images"
        raise DataError(
            f"{folder} {what}", "the layout is SPLIT/CLASS/IMAGE: sort the images into a folder for each class"
        )
    if others:
        remarks.append(
            f"{folder.name}: {counted(len(others), 'file')} without an image's ending left out: {few(others)}"
        )
    return classes


def _example(root: Path, path: Path, image_id: int, label: str, choices: tuple[str, ...]) -> Example:
    identifier = group_code(path.relative_to(root).as_posix())
    return Example(identifier, str(path), image_id, "", label, (label,), choices=choices)


def _names_in(file: Path, classes: Sequence[str]) -> dict[str, str]:
    """The names of the classes in a file. Raises DataError for a folder without a name, or another number of names."""
    try:
        lines = [line for line in read_whole(file).decode("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"cannot read {file}: {reason}", "option names= takes a text file") from error
    if any("\t" in line for line in lines):
        names = {folder.strip(): name.strip() for folder, _, name in (line.partition("\t") for line in lines)}
        missing = [name for name in classes if not names.get(name)]
        if missing:
            raise DataError(f"{file} has no name for {few(missing)}", "each line must read FOLDER, tab, NAME")
        return {name: names[name] for name in classes}
    if len(lines) != len(classes):
        raise DataError(
            f"{file} has {counted(len(lines), 'name')} for {counted(len(classes), 'folder')}",
            "give one name on each line, in the order of the folders, or FOLDER, tab, NAME",
        )
    return dict(zip(classes, (line.strip() for line in lines), strict=True))
