"""What an artefact says of itself, read without its rows: whether it is whole, and what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icltool.errors import StoreError
from icltool.releases import __version__
from icltool.store.artefact import Header, Schema, open_h5, reading
from icltool.store.atomic import read_json
from icltool.store.embeddings import _HEAD, SCHEMA, EmbeddingFile
from icltool.store.journal import Journal, journal_path
from icltool.store.out_of_order_rows import ahead_path
from icltool.store.workspace import TRAINED

COMPLETE, UNFINISHED, LEFTOVER, DAMAGED, OTHER = "complete", "unfinished", "leftover", "damaged", "other version"
#: The state of what another program made.
FOREIGN = "foreign"
#: Journals up to this size are read to count what is finished.
_COUNTED_BYTES = 1 << 26


@dataclass(frozen=True)
class Facts:
    """What is known of one artefact; "" and () where it says nothing.

    `state` is "complete", "unfinished" (its command goes on with it), "leftover" (nothing reads it), "damaged", "other
    version" or "foreign" (never listed); `note` says more. `dataset`, `task` and `dataset_fingerprint` name what it was made
    from; `embeddings` holds the fingerprints of such files, `sequences` the name of one, `files` paths of other artefacts;
    `stale` says why nothing that runs now would read it.
    """

    state: str = COMPLETE
    note: str = ""
    schema: str = ""
    version: int | None = None
    created: str = ""
    icltool_version: str = ""
    fingerprint: str = ""
    dataset: str = ""
    task: str = ""
    dataset_fingerprint: str = ""
    embeddings: tuple[str, ...] = ()
    sequences: str = ""
    files: tuple[str, ...] = ()
    stale: str = ""


def inspect(kind: str, path: Path) -> Facts:
    """The facts of the artefact of this kind (a folder of the workspace) at `path`. Nothing is raised for a damaged one."""
    look = _LOOKS.get(kind)
    if look is None:
        return Facts()
    try:
        return look(path)
    except StoreError as error:
        if "not a file of icltool's" in error.message:
            return Facts(FOREIGN)
        version = "newer icltool" in error.message or "older icltool" in error.message
        version = version or "schema version" in error.message
        return Facts(OTHER if version else DAMAGED, _without(error.message, path))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        return Facts(DAMAGED, f"malformed: {type(error).__name__} {error}")


def _without(message: str, path: Path) -> str:
    return message.replace(str(path), path.name)


def _embeddings(path: Path) -> Facts:
    return _of_rows(path, SCHEMA, "id", EmbeddingFile.open)


def _sequences(path: Path) -> Facts:
    from icltool.store.sequences import SCHEMA, SequenceFile

    return _of_rows(path, SCHEMA, "query_id", SequenceFile.open)


def _of_rows(path: Path, schema: Schema, column: str, opened: Callable[[Path], Any]) -> Facts:
    """The facts of a file that is written row by row, with a journal beside it while it is not finished."""
    file, header = open_h5(path, schema)
    with file, reading(path, schema):
        complete, rows = bool(file.attrs["complete"]), len(file[column])
    journal = journal_path(path)
    if not complete and _is_counted(journal):
        with opened(path) as merged:
            complete, rows = merged.complete, len(merged)
    note = "" if complete else f"{rows:,} of {int(header.details['total']):,}{_waiting(path, rows)}"
    embeddings = header.provenance.extra.get("embeddings_fingerprint")
    return _headed(header, COMPLETE if complete else UNFINISHED, note, (str(embeddings),) if embeddings else ())


def _is_counted(journal: Path) -> bool:
    return journal.is_file() and journal.stat().st_size <= _COUNTED_BYTES


def _waiting(path: Path, done: int) -> str:
    """How many rows beside the file wait for the ones after the first `done`; "" where there are none."""
    ahead, journal = ahead_path(path), journal_path(path)
    if not ahead.is_file():
        return ""
    if not _is_counted(ahead) or (journal.is_file() and not _is_counted(journal)):
        return "; more wait for rows before them"

    opened = Journal(ahead)
    try:
        blocks = sorted(_HEAD.unpack(opened.read(entry, _HEAD.size)) for entry in opened.entries)
    finally:
        opened.close()
    count, reached = 0, done
    for first, rows in blocks:
        count += max(0, first + rows - max(first, reached))
        reached = max(reached, first + rows)
    return f"; {count:,} more wait for rows before them" if count else ""


def _headed(header: Header, state: str, note: str, embeddings: tuple[str, ...] = (), stale: str = "") -> Facts:
    made = header.provenance.configuration
    return Facts(
        state,
        note,
        header.schema.name,
        header.schema.version,
        header.created,
        header.icltool_version,
        header.fingerprint(),
        str(made.get("dataset") or ""),
        str(made.get("task") or ""),
        header.provenance.dataset_fingerprint,
        embeddings,
        stale=stale,
    )


def _dataset(path: Path) -> Facts:
    from icltool.store.prepared import MANIFEST, SCHEMA, SCHEMA_VERSION, open_dataset

    if path.name == "source" and not (path / MANIFEST).exists():
        return Facts(note="files that its reader made")
    found = open_dataset(path)
    missing = [split for split in found.splits if not (path / split).is_dir()]
    created, version = found.manifest.get("created", ""), found.manifest.get("icltool_version", "")
    state, note = (DAMAGED, f"split {missing[0]} is missing") if missing else (COMPLETE, "")
    return Facts(
        state,
        note,
        SCHEMA,
        SCHEMA_VERSION,
        str(created),
        str(version),
        found.fingerprint,
        found.name,
        found.task,
        found.fingerprint,
    )


def _checkpoint(path: Path) -> Facts:
    record_file = path / TRAINED
    if not record_file.exists():
        kept = any(path.glob("resume*")) or any(path.glob("*.safetensors"))
        return Facts(UNFINISHED, "" if kept else "no weights yet")
    record = read_json(record_file)
    identity: Mapping[str, Any] = record["identity"]
    provenance: Mapping[str, Any] = record.get("provenance", {})
    missing = [name for name in record.get("checkpoints", {}).values() if not (path / name).is_file()]
    embeddings = identity.get("embeddings_fingerprint")
    return Facts(
        DAMAGED if missing else COMPLETE,
        f"{missing[0]} is missing" if missing else "",
        str(record.get("schema", "")),
        int(record.get("schema_version", 0)) or None,
        icltool_version=str(provenance.get("icltool", "")),
        dataset=str(identity.get("dataset") or ""),
        task=str(identity.get("task") or ""),
        dataset_fingerprint=str(identity.get("dataset_fingerprint") or ""),
        embeddings=(str(embeddings),) if embeddings else (),
        sequences=str(provenance.get("sequences") or ""),
        files=tuple(str(identity[key]) for key in ("model_path",) if isinstance(identity.get(key), str)),
    )


def _evaluation(path: Path) -> Facts:
    from icltool.store.evaluations import RESULTS, SCHEMA, VERSION, read_results

    partial = len(list(path.glob("predictions/.*.part")))
    if not (path / RESULTS).exists():
        return Facts(UNFINISHED, "no setting is finished")
    results, provenance = read_results(path)
    made: Mapping[str, Any] = provenance.get("configuration", {})
    return Facts(
        UNFINISHED if partial else COMPLETE,
        f"{len(results)} settings" + (f", {partial} begun" if partial else ""),
        SCHEMA,
        VERSION,
        dataset=str(made.get("dataset") or ""),
        task=str(made.get("task") or ""),
        dataset_fingerprint=str(made.get("dataset_fingerprint") or ""),
        files=_paths_in([made, *(result.extra.get("options") for result in results)]),
    )


def _paths_in(tables: list[Any]) -> tuple[str, ...]:
    """The texts among the values of some mappings that may be paths, each once."""
    found = (value for table in tables if isinstance(table, Mapping) for value in table.values())
    return tuple(dict.fromkeys(value for value in found if isinstance(value, str) and "/" in value))


def _captions(path: Path) -> Facts:
    if not path.exists():
        return Facts(UNFINISHED, "captions of a call that was interrupted")
    return Facts()


def _cache(path: Path) -> Facts:
    from importlib.metadata import PackageNotFoundError, version

    from icltool.store.image_features import SCHEMA

    file, header = open_h5(path, SCHEMA)
    file.close()
    stale = ""
    for library, made_with in header.provenance.configuration.items():
        try:
            current = __version__ if library == "icltool" else version(library)
        except PackageNotFoundError:
            current = "none"
        if current != made_with:
            stale = f"made with {library} {made_with}, and {current} is installed"
    return _headed(header, COMPLETE, str(header.details["model"]), stale=stale)


_LOOKS: dict[str, Callable[[Path], Facts]] = {
    "datasets": _dataset,
    "embeddings": _embeddings,
    "sequences": _sequences,
    "checkpoints": _checkpoint,
    "evaluations": _evaluation,
    "captions": _captions,
    "cache": _cache,
}
