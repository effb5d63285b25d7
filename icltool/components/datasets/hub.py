"""Any data set in the formats of Hugging Face `datasets`; options name its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from icltool.components.datasets.columns import ColumnOptions, Columns, chosen_columns
from icltool.components.datasets.folder import choices_column, listed_choices
from icltool.components.datasets.held_images import HeldImages
from icltool.components.datasets.held_out import (
    SHARE,
    SplitOrShare,
    held_out,
    held_out_remark,
    query_names,
    share_of,
    test_remark,
)
from icltool.components.datasets.hub_splits import HubSplit, open_splits
from icltool.components.datasets.images import SAMPLE
from icltool.components.datasets.labelled_rows import Row, Rows, as_sets, examples_by_split, list_in, without_hole
from icltool.components.datasets.places import chosen_root
from icltool.components.datasets.reader import TableReader
from icltool.contracts import Example, Options, PreparedSplit, Progress, ReadReport, Ticker
from icltool.errors import ConfigError, DataError


@dataclass(frozen=True)
class _OpenDataSet:
    """The splits by our names, "train" first, the columns that a task reads, and the share to hold out for the queries."""

    splits: dict[str, HubSplit]
    columns: Columns
    base: Path | None
    share: float | None


class SplitOptions(Options):
    """Which data set, and which of its splits."""

    path: str | None = Field(None, description="OWNER/NAME on the Hugging Face hub, or a folder of the same layout")
    name: str | None = Field(None, description="configuration of the data set, if it has several")
    train: str = Field("train", description="split that the index set is read from")
    validation: SplitOrShare = Field(
        "validation",
        description="split that queries are read from, or the share of the training images to hold out for them",
    )
    revision: str | None = Field(None, description="revision of the data set on the hub: a branch, tag or commit")

    @field_validator("validation")
    @classmethod
    def _check_share(cls, validation: SplitOrShare) -> SplitOrShare:
        share_of(validation)
        return validation


class HubOptions(SplitOptions, ColumnOptions):
    """Which data set, and what its columns hold."""


class HubReader(TableReader):
    """Reads a data set from the hub (`path=OWNER/NAME`) or from a folder (`path=` or --root): parquet, Arrow, JSON, or
    what `save_to_disk` wrote.

    Embedded images are written once, unchanged, to `datasets/NAME/source/images` of the workspace;
    images of equal bytes are one image, and its id comes from its bytes unless there is a column `image_id`. Several images of
    a row are a list, or columns image_1, image_2 … Without a split "validation" (val, dev), "test" holds the queries; without
    both, a tenth of the images is held out.
    """

    name = "hub"
    tasks: tuple[str, ...] = ("caption", "vqa", "classification")
    tasks_depend_on_files = True
    options_model: ClassVar[type[SplitOptions]] = HubOptions
    #: The value of `path=` that the hint suggests.
    published = "OWNER/NAME"

    def __init__(self, options: HubOptions) -> None:
        self.options = options
        self.share = share_of(options.validation)
        self.chosen = "validation" in options.model_fields_set or type(self) is not HubReader
        self.queries = str(options.validation)
        super().__init__()
        self._fault: DataError | None = None

    def named_after(self, root: Path | None) -> str:
        """See NamedAfterFiles: OWNER-NAME, or the folder's name; "" for readers of one particular data set."""
        if type(self) is not HubReader:
            return ""
        path = Path(self._path(root)).expanduser()
        return path.resolve().name if path.exists() else str(path)

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""
        opened = self._open(root, task)
        images = HeldImages(workspace / "datasets" / self.name / "source" / "images", opened.base)
        rows: dict[str, list[Row]] = {}
        for name, split in opened.splits.items():
            before = sum(map(len, rows.values()))
            with progress.task(f"reading {split.title}", split.count, "rows") as ticker:
                rows[name] = [_ticked(row, ticker) for row in self._rows(task, split, opened.columns, images, before)]
        for name, examples in self._examples(root, task, opened, rows)[0].items():
            yield PreparedSplit(name, len(examples), iter(examples))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        opened = self._open(root, task)
        images = HeldImages(None, opened.base)
        rows: dict[str, list[Row]] = {}
        for name, split in opened.splits.items():
            before = sum(map(len, rows.values()))
            read = self._rows(task, split, opened.columns, images, before, decode=True)
            if not verify:
                several = any(row.more for row in islice(read, SAMPLE))  # their number is then needed of each row
                rows[name] = list(self._rows(task, split, opened.columns, images if several else None, before))
            elif progress is None:
                rows[name] = list(read)
            else:
                with progress.task(f"opening the images of {split.title}", split.count, "rows") as ticker:
                    rows[name] = [_ticked(row, ticker) for row in read]
        _, remarks = self._examples(root, task, opened, rows, with_images=verify)
        files = dict.fromkeys(file for split in opened.splits.values() for file in split.files)
        return ReadReport(tuple(files), (*opened.columns.remarks, *remarks))

    def _open(self, root: Path | None, task: str) -> _OpenDataSet:
        path = self._path(root)
        if self.share is None and self.queries == self.options.train:
            raise ConfigError(
                f"data set {self.name!r}: train and validation are both {self.options.train!r}",
                "choose two different splits with --option train=SPLIT and --option validation=SPLIT",
            )
        queries: tuple[str, ...] = (
            () if self.share is not None else (self.queries,) if self.chosen else query_names(self.queries)
        )
        remarks: tuple[str, ...] = ()
        available, share = self._splits(path, [self.options.train, *queries]), self.share
        if len(available) == 1 and "validation" in queries:
            queries = ("test",) if self.chosen else query_names("test")
            available = self._splits(path, [self.options.train, *queries])
            remarks = (test_remark(f"data set {path}"),) if len(available) > 1 else ()
        if len(available) == 1 and share is None:
            if self.chosen:
                raise DataError(
                    f"data set {path} has no split {self.queries!r} for the queries",
                    "name another with --option validation=SPLIT, or hold out a share of train: --option validation=0.1",
                )
            share = SHARE
        names = [self.options.train, *(name for name in queries if name in available)][:2]
        splits = dict(zip(("train", "validation"), (available[name] for name in names), strict=False))
        present = list(dict.fromkeys(column for split in splits.values() for column in split.columns))
        named = {**self.options.named, "choices": choices_column(self.options.choices, present)}
        self.define_without_text(task, present, named)
        definition = self.task_definition(task)
        columns = chosen_columns(f"data set {path}", present, definition, named)
        optional = {"rule", "labels", *(columns.by_role if "labels" in columns else ())} - {*definition.fields}
        needed = [c for role, of_role in columns.by_role.items() if role not in optional for c in of_role]
        for split in splits.values():
            missing = [column for column in needed if column not in split.columns]
            if missing:
                raise DataError(f"split {split.name!r} of {path} has no column {', '.join(map(repr, missing))}")
        base = Path(path).expanduser().absolute()
        columns = replace(columns, remarks=(*remarks, *columns.remarks))
        return _OpenDataSet(splits, columns, base if base.is_dir() else None, share)

    def _splits(self, path: str, names: list[str]) -> dict[str, HubSplit]:
        """See `open_splits`. A failure is remembered: the data set is not opened again for each task."""
        if self._fault is not None:
            raise self._fault
        try:
            return open_splits(path, self.options.name, self.options.revision, names)
        except DataError as error:
            self._fault = error
            raise

    def _path(self, root: Path | None) -> str:
        if root is not None and self.options.path is not None:
            raise ConfigError(
                f"data set {self.name!r}: --root and path={self.options.path} exclude each other",
                "leave one of them out",
            )
        if root is not None:
            return str(chosen_root(root, (), self.name))
        if self.options.path is None:
            raise DataError(
                f"data set {self.name!r} needs a path",
                f"--option path={self.published} reads from the hub, --option path=FOLDER or --root FOLDER from a folder",
            )
        return self.options.path

    def _title(self, root: Path | None) -> str:
        return Path(self._path(root)).name

    def _examples(
        self, root: Path | None, task: str, opened: _OpenDataSet, rows: dict[str, list[Row]], with_images: bool = True
    ) -> tuple[dict[str, list[Example]], list[str]]:
        """The examples by split, and remarks. Without images, captions are not grouped by image, and ids, which the
        captions of an image may share, are not checked."""
        definition = self.task_definition(task)
        columns = opened.columns if with_images or definition.answers != "captions" else opened.columns.without("id")
        label = columns["label"]
        classes = opened.splits["train"].class_names.get(label[0], ()) if label else ()
        title = self._title(root)
        readers = {
            name: Rows(opened.splits[name].title, "row", columns, part, classes, self.options)
            for name, part in rows.items()
        }
        splits = examples_by_split(readers, definition, listed_choices(self.options.choices or ""))
        remarks = [remark for reader in readers.values() for remark in reader.remarks()]
        if opened.share is not None:
            splits["train"], splits["validation"] = held_out(splits["train"], opened.share, self.options.seed, title)
            remarks.append(held_out_remark(title, splits["validation"]))
        splits = as_sets(splits)
        for name, of_split in splits.items():
            remarks += self._counts(name, len(of_split), title)
        return {name: self._ordered(of_split) for name, of_split in splits.items()}, remarks

    def _counts(self, split: str, count: int, title: str) -> list[str]:
        """A remark if a data set of known size has another size."""
        return []

    def _ordered(self, examples: list[Example]) -> list[Example]:
        """In the order of the source; a reader of one particular data set may define another order."""
        return examples

    def _rows(
        self,
        task: str,
        split: HubSplit,
        columns: Columns,
        images: HeldImages | None,
        before: int,
        decode: bool = False,
    ) -> Iterator[Row]:
        """The rows of a split, numbered from `before` on, so that both splits share one numbering.

        `images` assigns files to the images, and decodes them fully with `decode`; if None, images are not read and each
        row counts as an image of its own.
        """
        of_image = columns["image"]
        names = [c for c in columns.names() if c in split.columns and (images is not None or c not in of_image)]
        required = "image" in self.task_definition(task).fields
        for place, values in enumerate(split.rows(names)):
            number, where = before + place, f"{split.title} row {place}"
            if not of_image:
                yield Row(place, number, values)
            elif images is None:
                yield Row(place, number, values, f"row {place}", number)
            else:
                cells = [values.pop(column, None) for column in of_image]
                cells = without_hole(list_in(cells[0]) if len(cells) == 1 else cells, where, of_image)
                if not cells and required:
                    images.place(None, where)  # raises DataError
                first: tuple[str, int | None] = images.place(cells[0], where, decode) if cells else ("", None)
                more = tuple(images.place(cell, where, decode) for cell in cells[1:])
                yield Row(place, number, values, *first, more)


def _ticked(row: Row, ticker: Ticker) -> Row:
    ticker.advance()
    return row
