"""Prepared data sets: Hugging Face `datasets` (Arrow) on disk, one folder per split, and a manifest beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, cast

import numpy as np

from icltool.contracts import Example, IntArray, PreparedSplit, Progress, Task, image_file
from icltool.errors import DataError, StoreError
from icltool.releases import __version__
from icltool.store.atomic import remove_folder_leftovers, sync, take_place, write_json, writing
from icltool.store.locking import locked
from icltool.store.prepared import (
    MANIFEST,
    SCHEMA,
    SCHEMA_VERSION,
    Manifest,
    Preparation,
    PreparedDataset,
    Records,
    SplitEntry,
    open_dataset,
)
from icltool.store.provenance import moment
from icltool.store.stamps import FILE as IMAGES, differing, image_files, read_stamps, stamps

if TYPE_CHECKING:
    import pyarrow

__all__ = ["PreparedDataset", "Records", "open_dataset", "write_dataset"]

_BATCH = 1000
_TEXT_FIELDS = ("text", "label", "question", "group", "question_type", "answer_type", "style", "rationale", "rule")
_LIST_FIELDS = ("references", "choices", "raw_references")
#: Texts by name, stored as a JSON object, "" for none.
_MAPPED_FIELDS = ("fields", "aspects", "labels")
#: Fields that were introduced later and that many data sets leave empty: data sets without them keep their
#: fingerprints.
_LATER_FIELDS = (
    "choices", "raw_references", "style", "more_images", "more_image_ids", "images_in_text", "rationale", "fields",
    "aspects", "rule", "labels", "support", "followed_by",
)  # fmt: skip


def write_dataset(
    folder: Path,
    name: str,
    task: str,
    default_task: str,
    splits: Iterable[PreparedSplit],
    provenance: Preparation,
    progress: Progress,
    verify: bool = False,
    declared: Task | None = None,
    image_namespace: str = "",
) -> PreparedDataset:
    """Writes the examples of `splits` to `folder` and returns the opened data set. Examples are read and written in
    batches, so that memory does not grow with the data set. Everything is written to a temporary folder beside `folder`,
    which is renamed when it is complete: an interrupted run leaves no partial data set, and leaves the previous one
    unchanged. Lone surrogates in texts, which no UTF-8 file can hold, become U+FFFD.

    The fingerprint is a hash of the content (of image paths only the last two parts, so that a moved data set keeps it). If
    the same data set is prepared again and its images have changed, their current size and time, and with `verify` their
    content, are part of it as well. `declared` is the definition of a task that is not built in: it is stored with the data
    set, and is part of the fingerprint.

    `image_namespace` names what the identities of its images are unique in. If the examples of `declared` have no text, that
    of a demonstration is its label, and that of a query is empty.

    Raises DataError for a split without examples, a repeated split name or a repeated example id; StoreError if another
    process is writing the same data set, the disk is full, or the folder is read-only.
    """
    folder = Path(folder)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder), _temporary_folder(folder) as temporary:
        described: dict[str, SplitEntry] = {}
        for split in splits:
            if split.name in described:
                raise DataError(
                    f"data set {name!r} has a second split {split.name!r}", "this is an error in its reader"
                )
            if declared is not None and declared.textless:
                as_text = _label_as_text if split.name == "train" else _without_text
                split = replace(split, examples=map(as_text, split.examples))
            described[split.name] = _write_split(temporary, folder, name, task, split, progress)
        if not described:
            raise DataError(f"data set {name!r} has no splits for task {task!r}", "this is an error in its reader")
        files = image_files(image for name in described for image in _images(temporary / name))
        images = stamps(files, folder.parents[2].absolute(), progress if verify else None)
        np.save(temporary / IMAGES, images)
        definition = declared.definition() if declared is not None else None
        fingerprint = _combined(name, task, described, definition)
        # The files that datasets.load_from_disk looks for.
        write_json(temporary / "dataset_dict.json", {"splits": list(described)})
        manifest: Manifest = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "icltool_version": __version__,
            "created": moment(),
            "name": name,
            "task": task,
            "default_task": default_task,
            "fingerprint": _revised(folder, fingerprint, files, images),
            "content": fingerprint,
            "splits": described,
            "provenance": provenance,
        }
        if definition is not None:
            manifest["task_definition"] = definition
        if image_namespace:
            manifest["image_namespace"] = image_namespace
        write_json(temporary / MANIFEST, manifest)
        with writing(folder):
            for file in temporary.rglob("*"):
                if file.is_file():
                    sync(file)
            take_place(temporary, folder)
    return open_dataset(folder)


def _label_as_text(example: Example) -> Example:
    return example if example.text else replace(example, text=example.label)


def _without_text(query: Example) -> Example:
    return replace(query, text="") if query.text == query.label else query


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, removed at the end if it is still there. The lock of `folder` must be held."""
    start = f".{folder.name}."
    with writing(folder):
        remove_folder_leftovers(folder, MANIFEST)
        temporary = folder.with_name(f"{start}{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_split(
    temporary: Path, folder: Path, name: str, task: str, split: PreparedSplit, progress: Progress
) -> SplitEntry:
    """Writes one split below `temporary` and returns its entry of the manifest. Error messages name `folder`."""
    import pyarrow as pa

    schema = _schema()
    stream_path = temporary / f"{split.name}.arrow"
    content = hashlib.blake2b(digest_size=16)
    ids, image_ids = array("q"), array("q")  # of millions of examples
    groups: set[object] = set()
    with contextlib.ExitStack() as stack:
        ticker = stack.enter_context(progress.task(f"{name} ({task}): {split.name}", split.count, "examples"))
        with writing(folder):
            sink = stack.enter_context(pa.OSFile(os.fspath(stream_path), "wb"))
            stream = pa.ipc.new_stream(sink, schema)
        examples = iter(split.examples)
        while batch := list(islice(examples, _BATCH)):
            rows = [_row(example) for example in batch]
            for example, row in zip(batch, rows, strict=True):
                content.update(_canonical(row))
                ids.append(int(example.id))
                image_ids.extend(map(int, example.image_ids if example.image else ()))
                groups.add(row["group"])
            with writing(folder):
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
            ticker.advance(len(batch))
        with writing(folder):
            stream.close()
            sink.close()
    _check_ids(name, split.name, ids)
    with writing(folder):
        _save(stream_path, temporary / split.name)
        stream_path.unlink()
    return {
        "examples": len(ids),
        "images": len(np.unique(np.array(image_ids, dtype=np.int64))),
        "groups": len(groups - {""}),
        "fingerprint": content.hexdigest(),
    }


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    text = pa.string()
    fields = [("id", pa.int64()), ("image", text), ("image_id", pa.int64())]
    further = [
        ("more_images", pa.list_(text)),
        ("more_image_ids", pa.list_(pa.int64())),
        ("images_in_text", pa.bool_()),
        ("support", pa.list_(pa.int64())),
        ("followed_by", text),
    ]
    lists = [(field, pa.list_(text)) for field in _LIST_FIELDS]
    return pa.schema(fields + further + lists + [(field, text) for field in (*_TEXT_FIELDS, *_MAPPED_FIELDS)])


def _row(example: Example) -> dict[str, object]:
    for image in example.images:
        _check_path(image)
    if len(example.image_ids) != max(1, len(example.images)) or (example.more_images and not example.image):
        raise DataError(
            f"example {example.id} has {len(example.images)} images and {len(example.image_ids)} image ids",
            "this is an error in the data set's reader",
        )
    return {
        "id": int(example.id),
        "image": example.image,
        "image_id": int(example.image_id),
        "more_images": list(example.images[1:]),
        "more_image_ids": [int(image_id) for image_id in example.image_ids[1:]],
        "images_in_text": bool(example.images_in_text),
        "support": [int(identifier) for identifier in example.support],
        "followed_by": _further(example),
        **{field: [_storable(item) for item in getattr(example, field)] for field in _LIST_FIELDS},
        **{field: _storable(getattr(example, field)) for field in _TEXT_FIELDS},
        **{field: _mapped(getattr(example, field)) for field in _MAPPED_FIELDS},
    }


def _further(example: Example) -> str:
    """The fields of the examples that follow it, with the number of their images, as JSON; "" for none. Their images are the
    last of its own."""
    listed = []
    for one in example.followed_by:
        if not one.image:
            raise DataError(
                f"example {example.id} is followed by one without an image", "this is an error in the reader"
            )
        texts = {name: _storable(getattr(one, name)) for name in ("text", "label", "question")}
        references = [_storable(text) for text in one.references]
        listed.append({"id": int(one.id), **texts, "references": references, "images": len(one.images)})
    return json.dumps(listed, ensure_ascii=False) if listed else ""


def _check_path(image: str) -> None:
    try:
        image.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the path of image {image!a} is not valid Unicode", "rename the folder or the file") from error
    if image and not Path(image_file(image)).is_absolute():
        raise DataError(f"image path {image!r} is not absolute", "this is an error in the data set's reader")


def _mapped(texts: Mapping[str, str]) -> str:
    stored = {_storable(name): _storable(text) for name, text in texts.items()}
    return json.dumps(stored, ensure_ascii=False) if stored else ""


def _storable(text: str) -> str:
    """The text with any lone surrogates replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _canonical(row: Mapping[str, object]) -> bytes:
    moved = {**row, "image": _last_parts(row["image"])}
    if row["more_images"]:
        moved["more_images"] = [_last_parts(image) for image in cast("list[str]", row["more_images"])]
    for field in _LATER_FIELDS:
        if not row[field]:
            del moved[field]
    return json.dumps(moved, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _last_parts(image: object) -> str:
    return "/".join(PurePath(str(image)).parts[-2:])


def _check_ids(name: str, split: str, ids: array[int]) -> None:
    if not ids:
        raise DataError(
            f"split {split!r} of data set {name!r} has no examples", "check the annotation file of that split"
        )
    values, counts = np.unique(np.array(ids, dtype=np.int64), return_counts=True)
    if len(values) < len(ids):
        repeated = int(values[counts > 1][0])
        raise DataError(
            f"example id {repeated} occurs more than once in split {split!r} of data set {name!r}",
            "ids must be unique within a split",
        )


def _save(stream_path: Path, target: Path) -> None:
    """Turns an Arrow stream into a folder for `datasets.load_from_disk`, without loading it into memory."""
    import datasets

    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_file(os.fspath(stream_path)).save_to_disk(os.fspath(target))
    finally:
        if bars:
            datasets.enable_progress_bars()


def _combined(
    name: str, task: str, described: Mapping[str, SplitEntry], definition: Mapping[str, object] | None
) -> str:
    own = [json.dumps(definition, sort_keys=True)] if definition is not None else []
    parts = [name, task, *own, *(f"{split}={entry['fingerprint']}" for split, entry in sorted(described.items()))]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _images(split: Path) -> list[str]:
    """The images of a newly written split, each once or twice."""
    import datasets

    table = datasets.load_from_disk(os.fspath(split)).data
    return [image for name in ("image", "more_images") for image in _distinct(table.column(name))]


def _distinct(column: pyarrow.ChunkedArray) -> list[str]:
    """The texts of a column of texts, or of lists of texts, each once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return cast("list[str]", pc.unique(texts).to_pylist())


def _revised(folder: Path, content: str, files: list[str], images: IntArray) -> str:
    """The fingerprint: `content`, the hash of the records, unless the data set in `folder` has the same one and its images
    have changed; then a fingerprint that includes the current images. Times of moved files do not count."""
    try:
        before = open_dataset(folder)
        moved = before.image_files() != files
    except StoreError:
        return content
    if before.manifest.get("content") != content:
        return content
    known = read_stamps(folder, len(images))
    if known is None:
        return before.fingerprint
    if moved:
        known[:, 1] = images[:, 1]
    if not len(differing(known, images)):
        return before.fingerprint
    read = images[:, 2] != 0
    telling = np.where(read[:, None], images * np.array([1, 0, 1]), images)
    return hashlib.blake2b(content.encode() + telling.tobytes(), digest_size=16).hexdigest()
