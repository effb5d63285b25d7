"""What made an artefact besides its options: the weights of models and encoders, and the versions of plugins."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from icltool.errors import StoreError

#: Files up to this size (64 MiB) are hashed whole; of larger ones, the size, the time of change and samples.
WHOLE = 1 << 26
_SAMPLES, _SAMPLE = 64, 1 << 16
#: Files beside weights that have no effect.
_NOT_READ = {".md", ".png", ".jpg", ".gitattributes", ".lock", ".msgpack", ".h5", ".onnx", ".csv", ".jsonl"}


class MadeBy(TypedDict, total=False):
    """Makers in a record."""

    plugins: dict[str, str]
    weights: dict[str, str]


@dataclass(frozen=True)
class Makers:
    """`plugins` maps a component ("models/idefics-9b") to its "distribution version", `weights` to a mark of the content of
    its weights, "" if they are not on this machine."""

    plugins: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, provenance: object) -> Makers:
        """The makers in an artefact's record, which may have none."""
        record = provenance if isinstance(provenance, Mapping) else {}
        plugins, weights = (record.get(name) for name in ("plugins", "weights"))
        return cls(
            plugins if isinstance(plugins, Mapping) else {},
            weights if isinstance(weights, Mapping) else {},
        )

    def record(self) -> MadeBy:
        """Their entry in a record."""
        record: MadeBy = {"plugins": dict(self.plugins)}
        if self.weights:
            record["weights"] = dict(self.weights)
        return record

    def difference(self, now: Makers) -> str:
        """The difference between `now` and what made the artefact, in words; "" for none. Makers that only one side has are
        not compared, and neither is icltool's own version, which declares itself when earlier results no longer hold."""
        for name, mark in now.weights.items():
            before = self.weights.get(name, "")
            if mark and before and mark != before:
                return f"other weights of {_component(name)} ({before} then, {mark} now)"
        for name, version in now.plugins.items():
            before = self.plugins.get(name, version)
            if before != version and not version.startswith("icltool "):
                return f"another version of {_component(name)} ({before} then, {version} now)"
        return ""

    def check(self, path: Path, now: Makers) -> None:
        """Raises StoreError if other weights or plugins would continue the artefact at `path`."""
        if difference := self.difference(now):
            raise StoreError(
                f"{path} was made with {difference}",
                "make it again with --overwrite, or restore what it was made with to resume",
            )


def content_mark(place: Path) -> str:
    """12 hex characters that change with the content of a file, or of the files in a folder (not in its subfolders). Small
    files are hashed whole. A large file of the hub's cache is named by its hash; of any other, size, time of change and
    samples are hashed. "" if there is no file.
    """
    if place.is_dir():
        files = sorted(f for f in place.iterdir() if f.is_file() and f.suffix not in _NOT_READ and f.name[0] != ".")
    elif place.is_file():
        files = [place]
    else:
        return ""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name if place.is_dir() else ''}\0{_mark(file)}\0".encode())
    return digest.hexdigest()[:12]


def _mark(file: Path) -> str:
    status = file.stat()
    if status.st_size <= WHOLE:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    blob = file.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == 64:  # the hub's cache names large files by their SHA-256
        return blob.name
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
    with file.open("rb") as stream:
        for number in range(_SAMPLES):
            stream.seek((status.st_size - _SAMPLE) * number // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()


def _component(name: str) -> str:
    """ "models/idefics-9b" as "model idefics-9b"."""
    kind, _, own = name.partition("/")
    return f"{kind.removesuffix('s')} {own}"
