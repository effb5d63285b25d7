"""What readers of published data sets share: where their files are, and the checks of what was read."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from icltool.components.datasets.images import check_decoding, listing
from icltool.components.datasets.official import counted, few, repeated
from icltool.components.datasets.places import archives_of, chosen_root, find_file, find_folder, on_disk
from icltool.components.datasets.reader import FileReader, unofficial
from icltool.contracts import Example, PreparedSplit, Progress, ReadReport, Source, file_exists
from icltool.errors import DataError


class Examples(Protocol):
    """Examples that can be counted, and gone through several times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Example]: ...


@dataclass(frozen=True)
class Part:
    """What was read of one split: its examples, the files that they are from and the folder of their images (None for texts, or
    where the files hold the images), with the further folders if there are several. `count` is the number of rows that the
    files have, `official` the published one (None: not known). `images` are the names of all images below the folder, where
    the reader knows them, and has compared the ids, without going through the examples."""

    name: str
    files: tuple[Path, ...]
    folder: Path | None
    examples: Examples
    count: int
    official: int | None
    remarks: tuple[str, ...] = ()
    more_folders: tuple[Path, ...] = ()
    images: Sequence[str] | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """All its folders of images, each once."""
        return () if self.folder is None else tuple(dict.fromkeys((self.folder, *self.more_folders)))


class PublishedReader(FileReader):
    """A reader of the files that a data set was published in.

    A subclass sets `title`, the name in messages, `variables` of the environment that may name the root, `folders` below the
    root that may hold the files ("" for the root itself), and `noun`, what a row is.
    """

    name: str
    source: Source
    title: ClassVar[str]
    variables: ClassVar[tuple[str, ...]] = ()
    folders: ClassVar[tuple[str, ...]] = ("",)
    noun: ClassVar[str] = "question"

    @abc.abstractmethod
    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """The splits, "train" first. Raises DataError that names a faulty file and its entry."""

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. Splits are read one after another."""
        for part in self.parts(root, task):
            yield PreparedSplit(part.name, len(part.examples), iter(part.examples))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        remarks: list[str] = []
        files: list[Path] = []
        for part in self.parts(root, task):
            self._expect(part)
            for folder in part.folders:
                names = image_names(part.examples, folder) if part.images is None else part.images
                self._expect_images(part.files[0], folder, names)
                check_decoding(folder, names, part.name, self.source.hint(), verify, progress)
            files += archives_of(part.folders)
            if part.official is not None:
                remarks += unofficial(part.files[0].name, part.count, self.noun, part.official)
            remarks += part.remarks
            files += part.files
        return ReadReport(on_disk(files), tuple(remarks))

    def bases(self, root: Path | None) -> list[Path]:
        """The folders that may hold the files. Raises DataError if there is no root."""
        try:
            start = chosen_root(root, self.variables, self.name)
        except DataError as error:
            if root is not None:
                raise
            raise DataError(error.message, f"{error.hint}; {self.source.hint()}") from error
        return [start / folder for folder in self.folders]

    def find(self, bases: Sequence[Path], name: str, archives: Sequence[str] = ()) -> Path | None:
        """The file of this name in one of the folders, or in one of the archives there."""
        return next((place for base in bases if (place := find_file(base, name, archives)) is not None), None)

    def file(self, bases: Sequence[Path], name: str, archives: Sequence[str] = ()) -> Path:
        """As `find`. Raises DataError if the file is missing."""
        place = self.find(bases, name, archives)
        if place is None:
            raise DataError(f"no {self.title} in {bases[-1]}: {name} is missing", self.source.hint(name))
        return place

    def images(self, bases: Sequence[Path], names: Sequence[str], archives: Sequence[str] = ()) -> Path:
        """The first of these folders of images that there is, packed or not. Raises DataError if there is none."""
        fault: DataError | None = None
        for name in names:
            for base in bases:
                try:
                    if (place := find_folder(base, name, archives)) is not None:
                        return place
                except DataError as error:  # an archive without this folder may hold another
                    fault = fault or error
        raise fault or DataError(
            f"no images of {self.title} in {bases[-1]}: folder {' or '.join(names)} is missing", self.source.hint()
        )

    def _expect(self, part: Part) -> None:
        """Raises DataError for a split without examples, or with a repeated id."""
        where = part.files[0]
        if len(part.examples) == 0:
            raise DataError(f"{where} has no usable {self.noun}", self.source.hint())
        if part.images is None and (twice := repeated([example.id for example in part.examples])) is not None:
            raise DataError(f"{where} lists {self.noun} {twice} more than once", self.source.hint())

    def _expect_images(self, file: Path, folder: Path, names: Sequence[str]) -> None:
        """Raises DataError for images that the file names and the folder lacks."""
        flat = listing(folder) if any("/" not in name for name in names) else frozenset()
        missing = [name for name in names if name not in flat and not ("/" in name and file_exists(folder / name))]
        if missing:
            raise DataError(
                f"{file} names {counted(len(missing), 'image')} missing from {folder}: {few(missing)}",
                self.source.hint(),
            )


def image_names(examples: Examples, folder: Path) -> list[str]:
    """The names of the examples' images in a folder and below it, each once."""
    start = f"{folder}/"
    images = (image for example in examples for image in example.images if image.startswith(start))
    return list(dict.fromkeys(image.removeprefix(start) for image in images))
