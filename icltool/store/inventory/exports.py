"""Recognises the files in exports/ and captions/ that icltool wrote. Their formats have no room for a record, and people
keep their own files beside them, so each is recognised by how its writer begins it."""

from __future__ import annotations

import json
import os
import re
import tarfile
from pathlib import Path

from icltool.store.plans import SCHEMA as PLAN

#: The number of bytes read at either end of a file.
_END_BYTES = 4096
#: The number of bytes read of the card of a packed model, which is its first file.
_CARD_BYTES = 1 << 20
#: JSON files larger than this are not exported results.
_RESULTS_BYTES = 1 << 26
_EXPORTED = b"Exported by icltool"

_CAPTIONS = re.compile(rb'\{\s*"model_name": ".*?",\s*"model_revision": "', re.DOTALL)
_SEQUENCES, _PLAN, _RESULTS = (
    rb'"-?\d+": \{"id_list": \[',
    rb'"schema": "' + re.escape(PLAN.encode()),
    rb'"provenance":',
)
_RESULTS_CSV = rb"method,shots,seed,queries,metric,mean,low,high,seconds"
_SEQUENCES_CSV = rb"query_id,beam,[^\n]*,candidates(\n|\Z)"
#: Suffix -> the beginning of a file of this format; for .md also a text near its end.
_BEGINNINGS = {
    ".html": rb'.*<meta name="generator" content="icltool ',
    ".json": rb"\{\s*(%b|%b|(?P<results>%b))" % (_SEQUENCES, _PLAN, _RESULTS),
    ".jsonl": rb'\{"query_id": -?\d+, "messages": \[',
    ".csv": _RESULTS_CSV + b"|" + _SEQUENCES_CSV,
    ".tex": rb"[^\n]*mean \[95 % interval\][^\n]*; needs \\usepackage\{booktabs\}(\n|\Z)",
    ".md": rb"\| method \|.*mean \\\[95 % interval\\\]",
}


def is_caption_file(path: Path) -> bool:
    return path.suffix == ".json" and _CAPTIONS.match(_ends(path)) is not None


def is_export(path: Path) -> bool:
    """Raises OSError or ValueError for a file that cannot be read or does not match its suffix."""
    if path.is_dir():
        weights = any(path.glob("*.safetensors"))
        return (path / "icltool.json").is_file() or (weights and _EXPORTED in (path / "README.md").read_bytes())
    if path.suffix == ".parquet":
        return _is_parquet(path)
    if path.suffix in (".gz", ".tgz"):
        return _is_archive(path)
    beginning = _BEGINNINGS.get(path.suffix)
    match = re.match(beginning, _ends(path), re.DOTALL) if beginning is not None else None
    if match is None or not match.groupdict().get("results"):
        return match is not None
    small = path.stat().st_size <= _RESULTS_BYTES
    return small and set(json.loads(path.read_bytes())) - {"published"} == {"provenance", "results", "analysis"}


def _is_parquet(path: Path) -> bool:
    """Whether the file holds sequences, with their provenance in the footer."""
    import pyarrow.parquet as pq

    return b"icltool" in (pq.read_schema(path).metadata or {})


def _is_archive(path: Path) -> bool:
    """Whether the file is a packed model, whose card comes first."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            card = archive.next()
            content = archive.extractfile(card) if card is not None and card.name.endswith("/README.md") else None
            return content is not None and _EXPORTED in content.read(_CARD_BYTES)
    except (tarfile.TarError, EOFError):
        return False


def _ends(path: Path) -> bytes:
    """The first and the last bytes of a file."""
    with path.open("rb") as file:
        head = file.read(_END_BYTES)
        file.seek(max(len(head), file.seek(0, os.SEEK_END) - _END_BYTES))
        return head + file.read()
