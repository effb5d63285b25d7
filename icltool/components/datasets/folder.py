"""A folder of images with a table (CSV, TSV, JSON or JSON Lines) of captions, questions and answers, or labels."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from icltool.components.datasets.columns import SYNONYMS, ColumnOptions, Columns, chosen_columns
from icltool.components.datasets.held_out import (
    SHARE,
    SPLIT_NAMES,
    SplitOrShare,
    held_out,
    held_out_remark,
    share_of,
    test_remark,
)
from icltool.components.datasets.images import check_decoding
from icltool.components.datasets.labelled_rows import Row, Rows, as_sets, examples_by_split, list_in, without_hole
from icltool.components.datasets.official import counted, few
from icltool.components.datasets.places import chosen_root
from icltool.components.datasets.reader import TableReader
from icltool.components.datasets.tables import Table, find_table, joined, read_table, with_column, with_label
from icltool.contracts import Example, PreparedSplit, Progress, ReadReport, file_exists, group_code, open_file
from icltool.errors import ConfigError, DataError

_RESTORE = "restore the file, or remove its row from the table"


@dataclass(frozen=True)
class _Content:
    """The examples of a task in the table."""

    table: Table
    splits: dict[str, list[Example]]
    remarks: tuple[str, ...]
    files: tuple[Path, ...]


class FolderOptions(ColumnOptions):
    """Which table, and what its columns hold."""

    table: str | None = Field(
        None, description="table file, relative to the folder; default: the only one in the folder"
    )
    join: str | None = Field(
        None,
        description="second table, whose columns are added to the rows with the same id, such as answers to questions",
    )
    split: str | None = Field(
        None, description="column of the split, whose values are train, validation (val, dev) or test"
    )
    style: str | None = Field(None, description="column of the style, for the task style")
    onehot: bool | None = Field(
        None, description="labels stand in a column for each class, 1 in that of the row's class and 0 in the others"
    )
    validation: SplitOrShare | None = Field(
        None,
        description=f"split that queries are read from, or the share of the training images to hold out for them ({SHARE})",
    )

    @field_validator("validation")
    @classmethod
    def _check_validation(cls, validation: SplitOrShare | None) -> SplitOrShare | None:
        if SPLIT_NAMES.get(str(validation).lower()) == "train":
            raise ConfigError("validation is 'train', which is the index set", "name another split")
        if validation is not None:
            share_of(validation)
        return validation


class FolderReader(TableReader):
    """Reads a folder of images with a table, for the task that the table's columns allow.

    Images are paths relative to `root`, or absolute, or within a zip archive (images.zip/a.jpg); `image="{image_id}.jpg"` makes
    them from other columns. Several images of a row are in columns image_1, image_2 …, or in a JSON list. Several captions of
    an image may be in several rows, in columns caption_1, caption_2 …, or in a JSON list; several answers go into a JSON list
    ("a|b" is one answer, unless `answers_separator` is "|"). Task "style" makes one example per row: the first caption in the
    row's style, the others as further references. Rows without caption, question, answer, text, style or label are left out,
    with a remark.

    A column `split` holds train, validation (val, dev) or test. With `validation=test` the test rows are the queries, and
    rows of other splits are left out. If there are no validation rows, the test rows are the queries; without those, or
    without a split column, a share of train's images is held out, drawn by image with `seed`: 0.1, or the share in
    `validation`. Ids are integers, or any texts (which become 63-bit codes). Without a column `image_id`, files of equal
    bytes are one image. The choices of a classification come from a column of choices, else they are all labels, sorted.
    """

    name = "folder"
    tasks = ("caption", "vqa", "classification", "style")
    tasks_depend_on_files = True
    options_model = FolderOptions

    def __init__(self, options: FolderOptions) -> None:
        self.options = options
        self.chosen = options.validation is not None
        self.share = share_of(SHARE if options.validation is None else options.validation)
        self.queries = str(options.validation) if self.share is None else "validation"
        super().__init__()

    def named_after(self, root: Path | None) -> str:
        """See NamedAfterFiles: the folder's name."""
        return _required_root(root).resolve().name

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""
        content = self._content(_required_root(root), task)
        for name, examples in content.splits.items():
            yield PreparedSplit(name, len(examples), iter(examples))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        content = self._content(_required_root(root), task)
        path = content.table.path
        images = list(dict.fromkeys(i for split in content.splits.values() for e in split for i in e.images))
        check_decoding(path.parent, images, path.name, _RESTORE, verify, progress)
        return ReadReport(content.files, content.remarks)

    def _content(self, root: Path, task: str) -> _Content:
        table, files = self._table(root)
        named = {**self.options.named, "choices": choices_column(self.options.choices, table.columns)}
        self.define_without_text(task, table.columns, named)
        definition = self.task_definition(task)
        columns = chosen_columns(str(table.path), table.columns, definition, named)
        rows = _rows(root, table, columns, required="image" in definition.fields)
        by_split, remarks = self._by_split(table, columns, rows)
        readers = {
            name: Rows(str(table.path), "line", columns, part, options=self.options) for name, part in by_split.items()
        }
        splits = examples_by_split(readers, definition, listed_choices(self.options.choices or ""))
        if "validation" not in splits:
            share = self.share or SHARE
            splits["train"], splits["validation"] = held_out(splits["train"], share, self.options.seed, str(table.path))
            remarks.append(held_out_remark(table.path.name, splits["validation"]))
        for reader in readers.values():
            remarks += reader.remarks()
        return _Content(table, as_sets(splits), (*columns.remarks, *remarks), files)

    def _table(self, root: Path) -> tuple[Table, tuple[Path, ...]]:
        """The table, with the columns of `join` and the paths that `image` makes; its files."""
        path, options = find_table(root, self.options.table), self.options
        table, files = read_table(path), [path]
        if options.join is not None:
            further = read_table(find_table(root, options.join))
            keys = [options.id] if options.id else SYNONYMS["id"]
            key = next((key for key in keys if key in table.columns and key in further.columns), None)
            if key is None:
                raise DataError(
                    f"{path} and {further.path} have no column of ids in common",
                    "name it with --option id=COLUMN",
                )
            table, files = joined(table, further, key), [path, further.path]
        if options.onehot:
            table = with_label(table)
        if options.image and "{" in options.image:
            table = with_column(table, options.image)
        return table, tuple(files)

    def _by_split(self, table: Table, columns: Columns, rows: list[Row]) -> tuple[dict[str, list[Row]], list[str]]:
        """Rows of "train", and of "validation" if the table has them; remarks."""
        if "split" not in columns:
            if self.share is None:
                raise DataError(
                    f"{table.path} has no column for split, but validation={self.queries} needs one",
                    "name the column with --option split=COLUMN, or hold out a share of train: --option validation=0.1",
                )
            return {"train": rows}, []
        column = columns["split"][0]
        rows_by_split: dict[str, list[Row]] = {}
        for row in rows:
            value = str(row.values.get(column) or "").strip()
            rows_by_split.setdefault(SPLIT_NAMES.get(value.lower(), value), []).append(row)
            if not value:
                raise DataError(
                    f"{table.path} line {row.place}: column {column!r} is empty", "fill in train or validation"
                )
        query_split = SPLIT_NAMES.get(self.queries.lower(), self.queries)
        notes = []
        if not self.chosen and query_split not in rows_by_split and "test" in rows_by_split:
            query_split = "test"
            notes = [test_remark(table.path.name)]
        for needed in ("train", query_split) if self.share is None else ("train",):
            if needed not in rows_by_split:
                raise DataError(
                    f"{table.path} has no rows of split {needed!r}; column {column!r} holds {few(sorted(rows_by_split))}",
                    "the index set is 'train'; choose the queries with --option validation=SPLIT",
                )
        others = {name: part for name, part in rows_by_split.items() if name not in ("train", query_split)}
        remarks = [
            *notes,
            *(
                f"{table.path.name}: {counted(len(part), 'row')} of split {name!r} left out (--option validation={name} "
                "makes them the queries)"
                for name, part in others.items()
            ),
        ]
        return {"train": rows_by_split["train"]} | (
            {"validation": rows_by_split[query_split]} if query_split in rows_by_split else {}
        ), remarks


def _required_root(root: Path | None) -> Path:
    if root is None:
        raise DataError("data set 'folder' needs a folder", "name the folder of the images and the table with --root")
    return chosen_root(root, (), "folder")


def choices_column(choices: str | None, present: Sequence[str]) -> str | None:
    """The column of each row's own choices: `choices` if it names a column, None for a common name, "" for no column."""
    return choices if choices is None or choices in present else ""


def listed_choices(choices: str | int) -> tuple[str, ...]:
    """ "no, yes" as ("no", "yes")."""
    return tuple(label.strip() for label in str(choices).split(",") if label.strip())


def _rows(root: Path, table: Table, columns: Columns, required: bool) -> list[Row]:
    """The table's rows with their images. Raises DataError that lists missing images with their lines, and for a row without
    an image if one is `required`."""
    if "image" not in columns:
        return [Row(line, number, values) for number, (line, values) in enumerate(table.rows)]
    of_image = columns["image"]
    paths: dict[str, str] = {}  # path in the table -> absolute path, "" if there is no such file
    missing: list[str] = []
    listed: list[list[str]] = []
    for line, values in table.rows:
        names = _image_names(f"{table.path} line {line}", values, of_image)
        if not names and required:
            raise DataError(f"{table.path} line {line} names no image", f"column {of_image[0]!r} is empty there")
        for name in names:
            if name not in paths:
                paths[name] = _existing_path(root, name)
            if not paths[name]:
                missing.append(f"{name} (line {line})")
        listed.append(names)
    if missing:
        raise DataError(
            f"{table.path} names {counted(len(missing), 'image')} missing from {root}: {few(missing)}",
            f"paths in column {of_image[0]!r} are relative to --root, or absolute",
        )
    codes = {} if "image_id" in columns else image_codes(root, list(dict.fromkeys(paths.values())))
    rows = []
    for number, ((line, values), names) in enumerate(zip(table.rows, listed, strict=True)):
        images = [(paths[name], codes.get(paths[name])) for name in names]
        (path, code), *more = images or [("", None)]
        rows.append(Row(line, number, values, path, code, tuple(more)))
    return rows


def _image_names(where: str, values: Mapping[str, object], columns: Sequence[str]) -> list[str]:
    """The paths in a row's image column, which may hold a list, or in its numbered columns."""
    cells: list[object] = [values.get(column) for column in columns]
    if len(columns) == 1:
        cells = list_in(cells[0])
    for cell in cells:
        if not isinstance(cell, str | None):
            raise DataError(f"{where}: column {columns[0]!r} is not a path: {cell!r}")
    return without_hole([str(cell or "").strip() for cell in cells], where, columns)


def _existing_path(root: Path, file_name: str) -> str:
    """The image's path on disk, "" if there is no such file. Names from other systems match as well: in the other Unicode
    form (macOS), or with backslashes between folders (Windows)."""
    names = dict.fromkeys([file_name, *(unicodedata.normalize(form, file_name) for form in ("NFC", "NFD"))])
    slashed = [] if "/" in file_name else [name.replace("\\", "/") for name in names]
    return next((path for name in (*names, *slashed) if file_exists(path := str(root / name))), "")


def image_codes(root: Path, paths: Sequence[str]) -> dict[str, int]:
    """A non-negative 63-bit image id for each path, from the path relative to `root`; files of equal bytes share one.

    Only files of equal size are read.
    """
    by_size: dict[int, list[str]] = {}
    for path in sorted(paths):
        by_size.setdefault(_size(path), []).append(path)
    codes: dict[str, int] = {}
    for of_size in by_size.values():
        first_of: dict[bytes, str] = {}
        for path in of_size:
            content = hashlib.blake2b(_content(path)).digest() if len(of_size) > 1 else b""
            first = Path(first_of.setdefault(content, path))
            codes[path] = group_code(first.relative_to(root).as_posix() if first.is_relative_to(root) else str(first))
    return codes


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a member of an archive
        return len(_content(path))


def _content(path: str) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror or error}", _RESTORE) from error
