"""Takes what tells of a machine and its data out of configurations, cards and headers."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import overload

from icltool.contracts.json import Json
from icltool.errors import StoreError

#: Keys whose values say where something lies, relative paths as well.
_PLACES = re.compile(
    r"(^|_)(path|root|folder|dir|directory|file|files|workspace|base|source|images|input|output|sequences|vectors)$"
)
#: A hub id: what was used, not where it lies.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: Absolute paths within a text; an address such as https://… is none.
_WITHIN = re.compile(r"(?<![\w.:/~…])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\`'\"<>|(),;]+[/\\])+[^\s`'\"<>|(),;]*")
_GONE = "…"
_LENGTH = struct.Struct("<Q")
_BLOCK = 1 << 22


@overload
def without_paths(value: Mapping[str, Json]) -> dict[str, Json]: ...
@overload
def without_paths(value: Json) -> Json: ...
def without_paths(value: Json) -> Json:
    """The same JSON value without paths: entries whose value is one are left out, and paths within texts become "…"."""
    if isinstance(value, Mapping):
        remaining = {}
        for key, item in value.items():
            if isinstance(item, str) and (_absolute(item) or _placed(str(key), item)):
                continue
            remaining[text_without_paths(str(key))] = without_paths(item)
        return remaining
    if isinstance(value, list):
        return [without_paths(item) for item in value if not (isinstance(item, str) and _absolute(item))]
    return text_without_paths(value) if isinstance(value, str) else value


def text_without_paths(text: str) -> str:
    """Absolute paths in a text become "…"."""
    return _WITHIN.sub(_GONE, text)


def paths_in(value: Json) -> set[str]:
    """The values that `without_paths` leaves out: what a text may repeat, with blanks in it."""
    if isinstance(value, Mapping):
        own = {v for k, v in value.items() if isinstance(v, str) and (_absolute(v) or _placed(str(k), v))}
        return own.union(*(paths_in(item) for item in value.values() if not isinstance(item, str)))
    if isinstance(value, list):
        own = {item for item in value if isinstance(item, str) and _absolute(item)}
        return own.union(*(paths_in(item) for item in value if not isinstance(item, str)))
    return set()


def place_of_model(configuration: Mapping[str, Json]) -> dict[str, Json]:
    """A file of transformers without the places that it was read from; all else is needed to load the model."""
    places = {}
    for key, item in configuration.items():
        if isinstance(item, str) and key in ("_name_or_path", "name_or_path", "tokenizer_file", "vocab_file"):
            continue
        places[key] = place_of_model(item) if isinstance(item, dict) else item
    return places


def rewrite_header(source: Path, target: Path, change: Callable[[dict[str, Json]], dict[str, Json]]) -> None:
    """Copies a file of fine-tuned weights (see `models.fine_tuned`) with another header; its numbers stay as they are.
    StoreError when it is cut."""
    with source.open("rb") as file, target.open("wb") as written:
        try:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            header = json.loads(file.read(length))
            metadata = header["__metadata__"]
            metadata["icltool"] = json.dumps(change(json.loads(metadata["icltool"])), sort_keys=True)
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{source} is truncated or not a file of fine-tuned weights", "train again") from error
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _LENGTH.size)  # numbers are aligned
        written.write(_LENGTH.pack(len(text)) + text)
        while block := file.read(_BLOCK):
            written.write(block)


def _absolute(text: str) -> bool:
    """A path from a root or a home on, of more than one part; a text that only begins with a stroke is none."""
    if "\n" in text or "://" in text:
        return False
    if text.startswith("~/") or (PurePosixPath(text).is_absolute() and len(PurePosixPath(text).parts) > 2):
        return True
    return PureWindowsPath(text).is_absolute()


def _placed(key: str, text: str) -> bool:
    """Whether a relative path stands under a key that says where something lies."""
    if not _PLACES.search(key) or "\n" in text or "://" in text:
        return False
    if key in ("base", "path", "model_path") and _HUB_ID.fullmatch(text) and not Path(text).exists():
        return False
    return "/" in text or "\\" in text
