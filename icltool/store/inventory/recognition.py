"""Which files and folders of a workspace icltool made: told by what is in them, as people keep their own beside them."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from icltool.errors import StoreError
from icltool.store.atomic import read_json
from icltool.store.evaluations import RESULTS
from icltool.store.failures import SCHEMA as FAILURES
from icltool.store.plans import SCHEMA as PLAN
from icltool.store.prepared import MANIFEST
from icltool.store.workspace import TRAINED

#: Kinds whose artefacts are one HDF5 file each.
ROWS = ("embeddings", "sequences", "cache")
#: Ends the names of lists of what was given up.
FAILED = ".failed.json"

#: The state of an interrupted training, and what it is written to before it takes that name.
_RESUME = ("resume.ckpt", ".resume.ckpt.new")
_HEAD_BYTES = 4096
#: The card is the first file of a packed model; its words lie within so many bytes of the unpacked archive.
_CARD_BYTES = 1 << 20
#: JSON files larger than this are no exported results.
_RESULTS_BYTES = 1 << 26
_EXPORTED = b"Exported by icltool"
_RESULT_COLUMNS = b"method,shots,seed,queries,metric,mean,low,high,seconds"
_SEQUENCES = re.compile(rb'\{\s*"-?\d+": \{"id_list": \[')
_PLAN = re.compile(rb'\{\s*"schema": "' + re.escape(PLAN.encode()) + b'"')
_CAPTIONS = re.compile(rb'\{\s*"model_name": ".*?",\s*"model_revision": "', re.DOTALL)
_CHAT = re.compile(rb'\{"query_id": -?\d+, "messages": \[')


def is_ours(kind: str, path: Path) -> bool:
    """Whether what lies at `path` in the workspace's folder `kind` is an artefact. What cannot be read is none."""
    try:
        return _KINDS[kind](path)
    except (OSError, StoreError, ValueError, AttributeError, TypeError):
        return False


def is_failures(path: Path) -> bool:
    """Whether the file is a list of what was given up (`icltool.store.failures`)."""
    try:
        return path.name.endswith(FAILED) and read_json(path).get("schema") == FAILURES
    except (OSError, StoreError, ValueError, AttributeError):
        return False


def _dataset(path: Path) -> bool:
    return path.is_dir() and (
        path.name == "source" or (path / MANIFEST).exists() or (path / "dataset_dict.json").exists()
    )


def _rows(path: Path) -> bool:
    return path.suffix == ".h5" and (path.is_file() or path.is_symlink())


def _checkpoint(path: Path) -> bool:
    """A training, also one that was stopped before it left weights: its lock stays beside the folder."""
    if not path.is_dir():
        return False
    left = any((path / name).exists() for name in (TRAINED, *_RESUME)) or any(path.glob("*.safetensors"))
    return left or path.with_name(f".{path.name}.lock").is_file()


def _evaluation(path: Path) -> bool:
    """An evaluation, also one that was stopped before its first answer: its lock stays in the folder."""
    if not path.is_dir():
        return False
    return (path / "predictions").is_dir() or any((path / name).is_file() for name in (RESULTS, f".{RESULTS}.lock"))


def _captions(path: Path) -> bool:
    return path.suffix == ".json" and _CAPTIONS.match(_head(path)) is not None


def _export(path: Path) -> bool:
    if path.is_dir():
        weights = any(path.glob("*.safetensors"))
        return (path / "icltool.json").is_file() or (weights and _EXPORTED in (path / "README.md").read_bytes())
    look = _FORMATS.get(path.suffix)
    return look is not None and look(path)


def _page(path: Path) -> bool:
    return b'<meta name="generator" content="icltool ' in _head(path)


def _json(path: Path) -> bool:
    """Sequences, a plan, or results."""
    head = _head(path)
    if _SEQUENCES.match(head) or _PLAN.match(head):
        return True
    if not re.match(rb'\{\s*"provenance":', head) or path.stat().st_size > _RESULTS_BYTES:
        return False
    return set(json.loads(path.read_bytes())) == {"provenance", "results", "analysis"}


def _chat(path: Path) -> bool:
    return _CHAT.match(_head(path)) is not None


def _csv(path: Path) -> bool:
    """Sequences or results."""
    first = _head(path).partition(b"\n")[0]
    return first.startswith(_RESULT_COLUMNS) or (first.startswith(b"query_id,beam,") and first.endswith(b",candidates"))


def _markdown(path: Path) -> bool:
    return _head(path).startswith(b"| method |") and rb"mean \[95 % interval\]" in _tail(path, _HEAD_BYTES)


def _latex(path: Path) -> bool:
    first = _head(path).partition(b"\n")[0]
    return b"mean [95 % interval]" in first and first.endswith(rb"; needs \usepackage{booktabs}")


def _parquet(path: Path) -> bool:
    """Sequences, whose provenance stands in the footer under icltool's name."""
    end = _tail(path, 8)
    return end[4:] == b"PAR1" and b"icltool" in _tail(path, 8 + int.from_bytes(end[:4], "little"))


def _archive(path: Path) -> bool:
    """A packed model, whose card comes first. Names need not end with .tar.gz: .tgz is one as well."""
    try:
        begun = zlib.decompressobj(wbits=31).decompress(_head(path, _CARD_BYTES), _CARD_BYTES)
    except zlib.error:
        return False
    return begun[:100].rstrip(b"\0").endswith(b"/README.md") and _EXPORTED in begun


def _head(path: Path, count: int = _HEAD_BYTES) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _tail(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - count))
        return file.read(count)


_KINDS: dict[str, Callable[[Path], bool]] = {
    "datasets": _dataset,
    **dict.fromkeys(ROWS, _rows),
    "checkpoints": _checkpoint,
    "evaluations": _evaluation,
    "captions": _captions,
    "exports": _export,
}
_FORMATS: dict[str, Callable[[Path], bool]] = {
    ".html": _page,
    ".json": _json,
    ".jsonl": _chat,
    ".csv": _csv,
    ".md": _markdown,
    ".tex": _latex,
    ".parquet": _parquet,
    ".gz": _archive,
    ".tgz": _archive,
}
