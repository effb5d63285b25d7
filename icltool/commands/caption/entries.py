"""Images to be captioned, as a JSON file lists them: read and checked before any model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icltool.contracts import Example, Task, image_error, image_reference, open_file, open_image, read_whole
from icltool.errors import ConfigError, DataError, suggestion

#: What an entry may hold; `question` and `clue` are two names of one thing.
KEYS = ("image", "image_hash", "style", "reference", "question", "clue")
#: Images that cannot be read are named, so many at most.
_NAMED = 3
_PATHS = "check the paths; --images FOLDER says where images lie"
_FILES = "get the file again, or take the entry out"
#: 48 bits: an id that depends on nothing but the entry's content.
_ID_BYTES = 6
_SHAPE = "a list of {style, image | image_hash, reference?, question? | clue?} is wanted"


@dataclass(frozen=True)
class Entry:
    """One image to be captioned. `number` counts from 1, `given` is what goes into the results beside the caption."""

    number: int
    given: Mapping[str, object]
    example: Example


def read_entries(file: Path, images: Path | None = None) -> list[Entry]:
    """The entries of a JSON file, in its order. Paths of images are relative to `images`, without it to the file's folder;
    an image hash stands for `HASH.jpg` there.

    Raises DataError, one line with file and entry, for what cannot be read or is malformed, and for images that are missing
    or no images, of which it names the first few.
    """
    found = _listed(file)
    folder = (images or file.parent).absolute()
    entries = [_entry(file, number, fields, folder) for number, fields in enumerate(found, 1)]
    _check_images(file, entries)
    return entries


def entry_of(number: int, example: Example) -> Entry:
    """A prepared example as an entry; its label is the reference."""
    given = {"style": example.style, "image": example.image, "question": example.question, "reference": example.label}
    return Entry(number, {key: value for key, value in given.items() if value}, example)


def asked_by(entries: Sequence[Entry], source: Path) -> str:
    """The task that the entries' own fields suggest: style, inference (a clue), vqa (a question), or caption. DataError where
    some have such a field and others lack it."""
    for key, task in (("clue", "inference"), ("question", "vqa"), ("style", "style")):
        with_key = [entry for entry in entries if key in entry.given]
        if with_key and len(with_key) < len(entries):
            lacking = next(entry for entry in entries if key not in entry.given)
            raise DataError(
                f"{source}, entry {lacking.number}: no {key}, and entry {with_key[0].number} has one",
                f"give each a {key}, or say by --task what is asked",
            )
        if with_key:
            return task
    return "caption"


def check_fields(entries: Iterable[Entry], task: Task, source: Path) -> None:
    """DataError for an entry without the style, the clue or the question that the task needs."""
    for entry in entries:
        if task.asked and not getattr(entry.example, task.asked):
            needed = task.called(task.asked)
            raise DataError(f"{source}, entry {entry.number}: no {needed}, which task {task.name} needs", "add it")


def check_image(reference: str) -> None:
    """DataError where the image's file is missing or no image. The pixels are not read."""
    from PIL import Image

    path = image_reference(reference).file
    try:
        with open_file(path) as file, open_image(file):
            return
    except ConfigError:
        raise
    except Exception as error:  # parsers of headers raise what they like
        told = image_error(path, error)
        gone = isinstance(error, FileNotFoundError | IsADirectoryError)
        limit = isinstance(error, Image.DecompressionBombError)
        raise DataError(told.message, _PATHS if gone else told.hint if limit else _FILES) from error


def digest_of(entries: Sequence[Entry]) -> str:
    """16 hex characters that change with what is asked about the images, their paths and their order."""
    lines = [[e.example.image, e.example.style, e.example.question, dict(e.given)] for e in entries]
    return hashlib.blake2b(json.dumps(lines, sort_keys=True).encode(), digest_size=8).hexdigest()


def _listed(file: Path) -> list[object]:
    try:
        found = json.loads(read_whole(file).decode("utf-8-sig"), object_pairs_hook=_without_repetition)
    except FileNotFoundError:
        raise DataError(f"{file} does not exist", "check --input") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", "check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON file: {error}", _SHAPE) from error
    if not isinstance(found, list):
        raise DataError(f"{file} holds no list, but {_kind(found)}", _SHAPE)
    if not found:
        raise DataError(f"{file} holds an empty list", _SHAPE)
    return found


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; ValueError for a key that it has twice, of which one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _entry(file: Path, number: int, fields: object, folder: Path) -> Entry:
    where = f"{file}, entry {number}"
    if not isinstance(fields, dict):
        raise DataError(f"{where}: {_kind(fields)} where an object was expected", _SHAPE)
    for key, value in fields.items():
        if key not in KEYS:
            raise DataError(f"{where}: unknown key {key!r}", suggestion(key, KEYS))
        if not isinstance(value, str):
            raise DataError(f"{where}: {key} is {_kind(value)} where a text was expected")
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
    given = {"style": style, "image": source, **fields}
    return Entry(number, {name: value for name, value in given.items() if value}, example)


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
        told = list(faults.values())
        more = f"; and {len(told) - _NAMED} more images" if len(told) > _NAMED else ""
        raise DataError(f"{file}: {'; '.join(told[:_NAMED])}{more}", "; ".join(hints))


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "a text", dict: "an object", list: "a list"}
    return kinds.get(type(value), "a number")
