"""What a workspace holds, apart from dates and measured times: by it a run that was killed is set against one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Keys whose values differ between two runs of the same command.
_VOLATILE = {
    "created", "seconds", "time", "date", "modified", "seconds_per_query", "measured", "_fingerprint", "files", "elapsed",
}  # fmt: skip
_DATES = re.compile(rb"\d{4}-\d\d-\d\d[T ][0-9:+.]*|[\d.]+ (s|ms|min)\b")


def content_of(workspace: Path) -> tuple[dict[str, str], list[str]]:
    """(digest of each visible file, "unreadable: …" for one that cannot be read whole; hidden files and folders, without
    locks)."""
    seen: dict[str, str] = {}
    hidden: list[str] = []
    for folder, folders, files in os.walk(workspace):
        for name in files:
            path = Path(folder, name)
            relative = path.relative_to(workspace)
            if any(part.startswith(".") for part in relative.parts):
                if not name.endswith(".lock"):
                    hidden.append(_without_tokens(str(relative)))
                continue
            try:
                seen[str(relative)] = digest_of(path, str(workspace))
            except Exception as error:  # whatever reads it may raise
                seen[str(relative)] = f"unreadable: {type(error).__name__}: {error}"[:300]
        hidden += [_without_tokens(f"{Path(folder, f).relative_to(workspace)}/") for f in folders if f.startswith(".")]
    return seen, sorted(hidden)


def digest_of(path: Path, place: str) -> str:
    """16 characters for what the file says, `place` being where its workspace lies. Raises what reading it raises."""
    digest = hashlib.blake2b(digest_size=8)
    reader = _READERS.get(path.suffix, _plain)
    for part in reader(path, place):
        digest.update(part)
    return digest.hexdigest()


def _json(path: Path, place: str) -> list[bytes]:
    return [_canonical(json.loads(path.read_bytes()), place)]


def _lines(path: Path, place: str) -> list[bytes]:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        raise ValueError("its last line is cut")
    return [_canonical(json.loads(line), place) for line in data.splitlines()]


def _h5(path: Path, place: str) -> list[bytes]:
    import h5py

    parts: list[bytes] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            parts.extend([name.encode(), str(item.dtype).encode(), item[()].tobytes()])

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(visit)
        attributes = {k: str(v) for k, v in file.attrs.items() if k not in ("created", "icltool_version")}
    return [*parts, _canonical(attributes, place)]


def _safetensors(path: Path, place: str) -> list[bytes]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        names = sorted(file.keys())
        parts = [part for name in names for part in (name.encode(), file.get_tensor(name).tobytes())]
        metadata = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
    return [*parts, _canonical(metadata, place)]


def _arrow(path: Path, place: str) -> list[bytes]:
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as stream:
        return [_canonical(pa.ipc.open_stream(stream).read_all().to_pylist(), place)]


def _image(path: Path, place: str) -> list[bytes]:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
    return [path.read_bytes()]


def _page(path: Path, place: str) -> list[bytes]:
    data = path.read_bytes()
    if not data.rstrip().endswith(b"</html>"):
        raise ValueError("the page is cut")
    return [str(len(data) // 4096).encode()]  # what it shows is data that other files hold


def _plain(path: Path, place: str) -> list[bytes]:
    return [_DATES.sub(b"", path.read_bytes()).replace(place.encode(), b"WORKSPACE")]


_READERS: dict[str, Callable[[Path, str], list[bytes]]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".h5": _h5,
    ".safetensors": _safetensors,
    ".arrow": _arrow,
    ".png": _image,
    ".jpg": _image,
    ".html": _page,
}


def _canonical(value: Any, place: str) -> bytes:
    return json.dumps(_steady(value), sort_keys=True).replace(place, "WORKSPACE").encode()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if k not in _VOLATILE and "second" not in k}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _without_tokens(name: str) -> str:
    return re.sub(r"\b[0-9a-f]{8}\b", "X", name)
