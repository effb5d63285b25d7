"""The JSON file that lists images to be captioned; it is checked before a model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icltool.contracts import Example, Task, image_error, image_reference, open_file, open_image, read_whole
from icltool.errors import ConfigError, DataError, suggestion

#: The keys of an entry; `question` and `clue` are two names of one field.
KEYS = ("image", "image_hash", "style", "reference", "question", "clue")
#: The largest number of unreadable images named in an error.
_NAMED = 3
_PATHS = "check the paths; --images FOLDER is the folder of the images"
_FILES = "restore the file, or remove the entry"
#: 48 bits: an id that depends on nothing but the entry's content.
_ID_BYTES = 6
_SHAPE = "expected a list of {style, image | image_hash, reference?, question? | clue?}"


@dataclass(frozen=True)
class Entry:
    """One image to be captioned. `number` counts from 1, `fields` go into the results beside the caption."""

    number: int
    fields: Mapping[str, object]
    example: Example


def read_entries(file: Path, images: Path | None = None) -> list[Entry]:
    """The entries of a JSON file, in its order. Paths of images are relative to `images`, by default to the file's folder;
    an image hash means `HASH.jpg` there.

    Raises DataError, with file and entry, for a file that cannot be read or is malformed, and for images that are missing or
    cannot be opened, of which it names the first.
    """
    rows = _listed(file)
    folder = (images or file.parent).absolute()
    entries = [_entry(file, number, fields, folder) for number, fields in enumerate(rows, 1)]
    _check_images(file, entries)
    return entries


def entry_of(number: int, example: Example) -> Entry:
    """A prepared example as an entry; its label is the reference."""
    fields = {"style": example.style, "image": example.image, "question": example.question, "reference": example.label}
    return Entry(number, {key: value for key, value in fields.items() if value}, example)


def task_of_entries(entries: Sequence[Entry], source: Path) -> str:
    """The task of the entries' fields: style, inference (clue), vqa (question), or caption. DataError if only some of them have
    such a field."""
    for key, task in (("clue", "inference"), ("question", "vqa"), ("style", "style")):
        with_key = [entry for entry in entries if key in entry.fields]
        if with_key and len(with_key) < len(entries):
            lacking = next(entry for entry in entries if key not in entry.fields)
            raise DataError(
                f"{source}, entry {lacking.number} has no {key}, but entry {with_key[0].number} has one",
                f"give each entry a {key}, or name the task with --task",
            )
        if with_key:
            return task
    return "caption"


def check_fields(entries: Iterable[Entry], task: Task, source: Path) -> None:
    """DataError for an entry without the style, the clue or the question that the task needs."""
    for entry in entries:
        if task.asked_field and not getattr(entry.example, task.asked_field):
            needed = task.called(task.asked_field)
            raise DataError(f"{source}, entry {entry.number}: no {needed}, which task {task.name} needs", "add it")


def check_image(reference: str) -> None:
    """DataError if the file is missing or is not an image. The pixels are not read."""
    from PIL import Image

    path = image_reference(reference).file
    try:
        with open_file(path) as file, open_image(file):
            return
    except ConfigError:
        raise
    except Exception as error:  # parsers of headers may raise any error
        fault = image_error(path, error)
        missing = isinstance(error, FileNotFoundError | IsADirectoryError)
        limit = isinstance(error, Image.DecompressionBombError)
        raise DataError(fault.message, _PATHS if missing else fault.hint if limit else _FILES) from error


def digest_of(entries: Sequence[Entry]) -> str:
    """16 hex characters: a hash of the entries, with the paths of their images, in their order."""
    lines = [[e.example.image, e.example.style, e.example.question, dict(e.fields)] for e in entries]
    return hashlib.blake2b(json.dumps(lines, sort_keys=True).encode(), digest_size=8).hexdigest()


def _listed(file: Path) -> list[object]:
    try:
        rows = json.loads(read_whole(file).decode("utf-8-sig"), object_pairs_hook=_without_repetition)
    except FileNotFoundError:
        raise DataError(f"{file} does not exist", "check --input") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", "check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not a JSON file: {error}", _SHAPE) from error
    if not isinstance(rows, list):
        raise DataError(f"{file} holds {_kind(rows)}, not a list", _SHAPE)
    if not rows:
        raise DataError(f"{file} holds an empty list", _SHAPE)
    return rows


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; ValueError for a repeated key, one of whose values would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return content


def _entry(file: Path, number: int, fields: object, folder: Path) -> Entry:
    where = f"{file}, entry {number}"
    if not isinstance(fields, dict):
        raise DataError(f"{where}: expected an object, got {_kind(fields)}", _SHAPE)
    for key, value in fields.items():
        if key not in KEYS:
            raise DataError(f"{where}: unknown key {key!r}", suggestion(key, KEYS))
        if not isinstance(value, str):
            raise DataError(f"{where}: {key} must be a string, got {_kind(value)}")
    fields = {key: value for key, value in fields.items() if value.strip()}
    names = [key for key in ("image", "image_hash") if key in fields]
    if len(names) != 1:
        raise DataError(
            f"{where}: {'both image and image_hash' if names else 'no image'}", "give image (a path) or image_hash"
        )
    if "question" in fields and "clue" in fields:
        raise DataError(f"{where}: both question and clue", "give one of them")
    source = fields["image"] if names == ["image"] else f"{fields['image_hash']}.jpg"
    reference = image_reference(source)
    image = str(replace(reference, file=str(folder / reference.file)))
    question, style = fields.get("question", fields.get("clue", "")), fields.get("style", "")
    label = fields.get("reference", "")
    content = "\x00".join([reference.file, str(reference), question, style]).encode()
    key = int.from_bytes(hashlib.blake2b(content, digest_size=_ID_BYTES).digest(), "big")
    references = (label,) if label else ()
    example = Example(key, image, key, question or label, label, references, question=question, style=style)
    fields = {"style": style, "image": source, **fields}
    return Entry(number, {name: value for name, value in fields.items() if value}, example)


def _check_images(file: Path, entries: Sequence[Entry]) -> None:
    faults: dict[str, str] = {}
    hints: list[str] = []
    for entry in entries:
        if entry.example.image in faults:
            continue
        try:
            check_image(entry.example.image)
        except DataError as error:
            faults[entry.example.image] = f"entry {entry.number}: {error.message}"
            hints += [error.hint] if error.hint and error.hint not in hints else []
    if faults:
        messages = list(faults.values())
        more = f"; and {len(messages) - _NAMED} more images" if len(messages) > _NAMED else ""
        raise DataError(f"{file}: {'; '.join(messages[:_NAMED])}{more}", "; ".join(hints))


def _kind(value: object) -> str:
    """The type of a JSON value, in words."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "a text", dict: "an object", list: "a list"}
    return kinds.get(type(value), "a number")
