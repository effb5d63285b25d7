"""Reading prepared data sets back."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeGuard

import numpy as np

from icltool.contracts import NO_IMAGE, Example, IntArray, Task, as_query, group_code, image_reference, task_from
from icltool.contracts.json import Json
from icltool.errors import OtherVersionError, StoreError, closest
from icltool.store.atomic import read_json
from icltool.store.stamps import check_stamps, differing, image_files, read_stamps, stamps
from icltool.store.workspace import prepare_command

if TYPE_CHECKING:
    import datasets

MANIFEST = "dataset.json"
#: A file beside the manifest of a data set that was copied from another machine: {image file there: its path below this
#: folder}.
MOVED = "moved.json"
SCHEMA = "icltool.dataset"
SCHEMA_VERSION = 2
#: Earlier versions that are read. In version 1 an example has one image at most, and neither rationale nor rule.
_READ_VERSIONS = (1, SCHEMA_VERSION)
_READ_BATCH = 4096
#: Columns of several texts. Records written before a column was introduced lack it.
_LISTS = ("references", "choices", "raw_references", "more_images", "more_image_ids", "support")
#: Columns of texts by name, each a JSON object, "" for none.
_MAPPINGS = ("fields", "aspects", "labels")


class SplitEntry(TypedDict):
    """The size of a split, and a hash of its records."""

    examples: int
    images: int
    groups: int
    fingerprint: str


class Inputs(TypedDict, total=False):
    """What determines the content: the reader ("distribution version"), its options with their defaults, the folder, the
    files that it read with their [size, time of change in ns]; if any, the metrics that it names for the task, the number of
    examples that each split is limited to, and the task's definition."""

    reader: str
    options: dict[str, Json]
    root: str | None
    files: dict[str, list[int]]
    metric: str | list[str]
    limit: int
    task: dict[str, object]


class Preparation(TypedDict, total=False):
    """How a data set was prepared: the command's options, its inputs, and the file of a user-defined task."""

    configuration: dict[str, Json]
    inputs: Inputs
    task_file: str


class _Needed(TypedDict):
    schema: str
    schema_version: int
    name: str
    task: str
    default_task: str
    fingerprint: str
    splits: dict[str, SplitEntry]


class Manifest(_Needed, total=False):
    """The content of dataset.json. `content` is the fingerprint of the records alone. Fields that are not needed to read
    the records are unchecked."""

    icltool_version: str
    created: str
    task_definition: dict[str, object]
    image_namespace: str
    content: str
    provenance: Preparation


class PreparedDataset:
    """A data set as written by `icltool prepare`. `manifest` is the content of dataset.json; `splits` are the names of the
    splits; `metrics` are those that its reader names for this task, () for the task's own."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.name = manifest["name"]
        self.task = manifest["task"]
        self.fingerprint = manifest["fingerprint"]
        self.metrics: tuple[str, ...] = _metrics(manifest)
        #: The definition of its task if that is not built in.
        self.declared: Task | None = _declared(folder / MANIFEST, manifest)
        self.splits: tuple[str, ...] = tuple(manifest["splits"])
        #: Local paths of images that the records have in another folder, by their files there; see MOVED.
        self.moved: dict[str, str] = _moved(folder)
        self._opened: dict[str, Records] = {}

    @property
    def _hint(self) -> str:
        return _again(self.name, self.task, self.manifest)

    def part(self, split: str) -> PreparedDataset:
        """The data set that this split is prepared in: itself, unless it pairs two (see icltool.store.paired)."""
        return self

    def identity(self) -> dict[str, Json]:
        """What artefacts record beside its name, task and fingerprint: of a pair, its two data sets."""
        return {}

    def __repr__(self) -> str:
        return f"PreparedDataset({self.name!r}, {self.task!r}, {str(self.folder)!r})"

    def image_files(self) -> list[str]:
        """The files of all its images, without duplicates, sorted."""
        return image_files(image for name in self.splits for images in self.split(name).image_lists for image in images)

    def changed_images(self, own: Path) -> int:
        """The number of its image files that have changed since it was prepared; see icltool.store.stamps for `own`."""
        files = self.image_files()
        before = read_stamps(self.folder, len(files))
        return 0 if before is None else len(differing(before, stamps(files, own)))

    def check_images(self) -> None:
        """Raises StoreError if images have changed since it was prepared; of many, a sample is checked. Images copied to
        another machine are not."""
        if not self.moved:
            own = self.folder.parents[2].absolute()
            check_stamps(self.folder, self.image_files(), own, self._hint)

    def query_records(self, name: str) -> Records:
        """The records of a split as queries: examples with a label for each rule get one of the rules, see `as_query`.
        Raises StoreError as `split`."""
        return self.split(name).as_queries()

    def split(self, name: str) -> Records:
        """The records of "train" (the index set), "validation" (the queries) or "development" (if a data set has one),
        memory-mapped. Raises StoreError if there is no such split, or its files are missing or truncated.
        """
        if name == "train" and name not in self.splits:
            raise StoreError(
                f"{self.name} ({self.task}) has queries only, and no examples for demonstrations",
                "name a prepared data set that has them: --index-dataset NAME",
            )
        if name not in self.splits:
            close = closest(name, self.splits)
            raise StoreError(
                f"{self.folder} has no split {name!r}; it has {', '.join(self.splits)}",
                f"did you mean {close!r}?" if close else self._hint,
            )
        if name not in self._opened:
            rows = _load(self.folder / name, self._hint)
            expected = self.manifest["splits"][name]["examples"]
            if len(rows) != expected:
                raise StoreError(
                    f"{self.folder / name} is truncated: it has {len(rows)} of {expected} examples",
                    self._hint,
                )
            self._opened[name] = Records(self.folder / name, rows, self.moved)
        return self._opened[name]


class Records:
    """The N examples of one split, by row."""

    def __init__(
        self,
        folder: Path,
        rows: datasets.Dataset,
        moved: Mapping[str, str] | None = None,
        *,
        queries: bool = False,
    ) -> None:
        self.folder = folder
        self._rows = rows
        self._moved = moved or {}
        self._queries = queries

    def as_queries(self) -> Records:
        """These records as queries; themselves if no example has labels for rules."""
        if self._queries or self.label_rules is None:
            return self
        return Records(self.folder, self._rows, self._moved, queries=True)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Example:
        """The example in this row. IndexError outside -N..N-1."""
        with self._reading():
            return self._here(_example(self._rows[int(row)]))

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), _READ_BATCH):
            with self._reading():
                examples = _examples(self._rows[start : start + _READ_BATCH])
            yield from map(self._here, examples)

    def rows(self, rows: IntArray | Sequence[int]) -> list[Example]:
        """The examples in these rows, in the order given. IndexError when one is outside -N..N-1."""
        positions = np.asarray(rows, dtype=np.int64).reshape(-1)
        with self._reading():
            return [self._here(e) for e in _examples(self._rows[positions.tolist()])] if len(positions) else []

    def references(self) -> Iterator[tuple[str, ...]]:
        """The references of every example, in row order."""
        for start in range(0, len(self), _READ_BATCH):
            with self._reading():
                texts = self._rows[start : start + _READ_BATCH]["references"]
            yield from map(tuple, texts)

    def row_of(self, example_id: int) -> int:
        """The row of the example with this id. StoreError if there is none (the id is of another data set)."""
        order, ordered = self._order
        place = int(np.searchsorted(ordered, example_id))
        if place == len(ordered) or ordered[place] != example_id:
            raise StoreError(
                f"{self.folder} has no example {example_id}", "the id comes from another data set or split"
            )
        return int(order[place])

    @functools.cached_property
    def ids(self) -> IntArray:
        """int64 [N], unique."""
        return self._integers("id")

    @functools.cached_property
    def image_ids(self) -> IntArray:
        """int64 [N]: of the first images (of text-only data, of the texts)."""
        return self._integers("image_id")

    @functools.cached_property
    def more_image_ids(self) -> IntArray | None:
        """int64 [N, M]: the identities of further images, NO_IMAGE on the right; None if every example has one at most."""
        return _padded_ids(self._lists("more_image_ids"))

    @functools.cached_property
    def support(self) -> IntArray | None:
        """int64 [N, S]: the ids of the examples that may be shown to each example as a query, NO_IMAGE on the right; None if
        no example has a support set."""
        return _padded_ids(self._lists("support"))

    @functools.cached_property
    def followers(self) -> int:
        """The largest number of examples that follow one in a prompt."""
        cells = self._texts("followed_by") if "followed_by" in self._rows.column_names else []
        return max((len(json.loads(cell)) for cell in set(cells) - {""}), default=0)

    @functools.cached_property
    def groups(self) -> IntArray:
        """int64 [N]: `group_code` of each near-duplicate group, -1 for none."""
        names = self._texts("group")
        codes = {name: group_code(name) for name in set(names)}
        return np.array([codes[name] for name in names], dtype=np.int64)

    @functools.cached_property
    def rules(self) -> IntArray | None:
        """int64 [N]: `group_code` of the rule that each example, as a query, is answered by, -1 for none; None if no example
        has one."""
        if self._queries:
            return np.array([group_code(example.rule) for example in self], dtype=np.int64)
        names = self._texts("rule") if "rule" in self._rows.column_names else []
        return np.array([group_code(name) for name in names], dtype=np.int64) if any(names) else None

    @functools.cached_property
    def label_rules(self) -> IntArray | None:
        """int64 [N, R]: `group_code` of the rules that each example has a label for, -1 on the right; None if no example has
        such labels."""
        cells = self._texts("labels") if "labels" in self._rows.column_names else []
        if not any(cells):
            return None
        names = [list(json.loads(cell)) if cell else [] for cell in cells]
        codes = np.full((len(names), max(map(len, names))), -1, dtype=np.int64)
        for row, own in zip(codes, names, strict=True):
            row[: len(own)] = [group_code(name) for name in own]
        return codes

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """The retrieval texts."""
        return tuple(self._texts("text"))

    @functools.cached_property
    def images(self) -> list[str]:
        """References of the images (absolute paths, with regions appended), "" for none."""
        return [moved_image(image, self._moved) for image in self._texts("image")]

    @functools.cached_property
    def image_lists(self) -> list[tuple[str, ...]]:
        """References of all images of each example, in prompt order; () for none."""
        firsts: list[tuple[str, ...]] = [(image,) if image else () for image in self.images]
        further = self._lists("more_images")
        if not further:
            return firsts
        moved = (tuple(moved_image(image, self._moved) for image in images) for images in further)
        return [first + more for first, more in zip(firsts, moved, strict=True)]

    def images_in(self, rows: IntArray) -> set[int]:
        """The identities of the images in these rows."""
        ids = set(self.image_ids[rows].tolist())
        return (
            ids if self.more_image_ids is None else ids | set(self.more_image_ids[rows].ravel().tolist()) - {NO_IMAGE}
        )

    @functools.cached_property
    def most_images(self) -> int:
        """The largest number of images of an example."""
        return int(self.has_images) + max(map(len, self._lists("more_images")), default=0)

    @functools.cached_property
    def has_images(self) -> bool:
        """Whether any example has one."""
        import pyarrow.compute as pc

        return bool(pc.any(pc.not_equal(self._rows.data.column("image"), "")).as_py())

    def _here(self, example: Example) -> Example:
        if self._queries:
            example = as_query(example)
        if not self._moved:
            return example
        image, *more = (moved_image(image, self._moved) for image in (example.image, *example.more_images))
        return replace(example, image=image, more_images=tuple(more))

    @functools.cached_property
    def _order(self) -> tuple[IntArray, IntArray]:
        order: IntArray = np.argsort(self.ids, kind="stable").astype(np.int64)
        return order, self.ids[order]

    def _integers(self, column: str) -> IntArray:
        with self._reading():
            return np.array(self._rows.data.column(column).to_numpy(), dtype=np.int64)

    def _lists(self, column: str) -> list[list[Any]]:
        """The lists in a column; [] if the records were written before it was there, or none has an item."""
        if column not in self._rows.column_names:
            return []
        import pyarrow.compute as pc

        with self._reading():
            values = self._rows.data.column(column)
            return values.to_pylist() if pc.sum(pc.list_value_length(values)).as_py() else []

    def _texts(self, column: str) -> list[str]:
        with self._reading():
            texts: list[str] = self._rows.data.column(column).to_pylist()
        return texts

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns any exception for a damaged file into a StoreError that names it."""
        import pyarrow as pa

        try:
            yield
        except (UnicodeDecodeError, pa.ArrowException, OSError, TypeError) as error:
            raise StoreError(
                f"{self.folder} is damaged: {' '.join(str(error).split())[:200]}",
                "run the `icltool prepare` command that made it again",
            ) from error


def open_dataset(folder: Path) -> PreparedDataset:
    """The prepared data set in `folder`. Its splits are opened on access. Raises StoreError if there is none, its manifest
    is malformed, or it has another schema version.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    again = _again(folder.parent.name, folder.name)
    if not path.is_file():
        raise StoreError(f"no prepared data set in {folder}", again)
    manifest: Json = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise StoreError(f"{path} is not a manifest of a prepared data set", again)
    if manifest.get("schema_version") not in _READ_VERSIONS:
        raise OtherVersionError(
            f"{path} has schema version {manifest.get('schema_version')}; this icltool reads {SCHEMA_VERSION}", again
        )
    if not _is_manifest(manifest):
        raise StoreError(f"{path} is malformed: name, task, default_task, fingerprint and splits are needed", again)
    return PreparedDataset(folder, manifest)


def moved_image(reference: str, moved: Mapping[str, str]) -> str:
    """The reference with its file replaced according to `moved`; regions stay."""
    if not moved or not reference:
        return reference
    parsed = image_reference(reference)
    return str(replace(parsed, file=moved.get(parsed.file, parsed.file)))


def _moved(folder: Path) -> dict[str, str]:
    path = folder / MOVED
    if not path.is_file():
        return {}
    moved: Json = read_json(path)
    if not isinstance(moved, dict):
        raise StoreError(f"{path} is malformed: an object was expected", "send the data set again")
    return {there: str(folder / str(here)) for there, here in moved.items()}


def _is_manifest(content: dict[str, Json]) -> TypeGuard[Manifest]:
    """Whether it has what is needed to read the records."""
    texts = all(isinstance(content.get(key), str) for key in ("name", "task", "default_task", "fingerprint"))
    splits = content.get("splits")
    return (
        texts
        and isinstance(splits, dict)
        and all(isinstance(entry, dict) and isinstance(entry.get("examples"), int) for entry in splits.values())
    )


def _declared(path: Path, manifest: Manifest) -> Task | None:
    definition = manifest.get("task_definition")
    return task_from(definition, f"{path}, task_definition") if isinstance(definition, dict) else None


def _metrics(manifest: Manifest) -> tuple[str, ...]:
    """The metrics that the reader named when the data set was prepared, the main one first; () if it named none."""
    provenance = manifest.get("provenance")
    inputs = provenance.get("inputs") if isinstance(provenance, dict) else None
    named = inputs.get("metric") if isinstance(inputs, dict) else None
    listed = named if isinstance(named, list) else [named]
    return tuple(name for name in listed if name and isinstance(name, str))


def _load(folder: Path, again: str) -> datasets.Dataset:
    import datasets

    try:
        for entry in folder.iterdir():
            if not entry.is_file():
                raise OSError(f"{entry.name} is not a file")
        loaded = datasets.load_from_disk(str(folder)).with_format(None)  # whatever state.json says of it
        loaded.data.validate(full=True)  # takes 0.05 s for a million rows; nothing else checks the offsets of texts
        return loaded
    except Exception as error:  # damaged files may raise anything in the library
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{folder} cannot be read: {reason}", again) from error


def _again(name: str, task: str, manifest: Manifest | None = None) -> str:
    """The hint to prepare it again; `manifest` names the reader if it can be read."""
    try:
        provenance = manifest["provenance"] if manifest is not None else Preparation()
        reader, file = str(provenance["configuration"]["name"]), provenance.get("task_file")
    except (KeyError, TypeError):
        reader, file = name, None
    return f"run `{prepare_command(reader, name, task, file)}` again"


def _padded_ids(lists: Sequence[Sequence[int]]) -> IntArray | None:
    """int64 [N, M], NO_IMAGE on the right; None if all lists are empty."""
    most = max(map(len, lists), default=0)
    if not most:
        return None
    ids = np.full((len(lists), most), NO_IMAGE, dtype=np.int64)
    for row, own in zip(ids, lists, strict=True):
        row[: len(own)] = own
    return ids


def _example(row: dict[str, Any]) -> Example:
    lists: dict[str, Any] = {name: tuple(row[name]) for name in _LISTS if name in row}
    mappings: dict[str, Any] = {name: json.loads(row[name]) if row[name] else {} for name in _MAPPINGS if name in row}
    further = row.pop("followed_by", "")
    example = Example(**{**row, **lists, **mappings})
    return with_followers(example, json.loads(further)) if further else example


def with_followers(example: Example, further: Sequence[Mapping[str, Any]]) -> Example:
    """The example with those that follow it, whose images are the last of its own; `further` are their fields, with the
    number of their images."""
    images, image_ids = list(example.more_images), list(example.more_image_ids)
    followers: list[Example] = []
    for fields in reversed(further):
        values = {**fields, "references": tuple(fields["references"])}
        count = values.pop("images")
        (first, *more), (first_id, *more_ids) = images[-count:], image_ids[-count:]
        del images[-count:], image_ids[-count:]
        followers.insert(
            0,
            Example(**values, image=first, image_id=first_id, more_images=tuple(more), more_image_ids=tuple(more_ids)),
        )
    return replace(example, more_images=tuple(images), more_image_ids=tuple(image_ids), followed_by=tuple(followers))


def _examples(columns: dict[str, list[Any]]) -> list[Example]:
    names = list(columns)
    return [_example(dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True)]
