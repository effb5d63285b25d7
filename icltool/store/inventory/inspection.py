"""Reads an artefact's own record, but not its rows: whether icltool wrote it, whether it is complete, and what it was made
from.

Every kind has such a record: datasets/ a dataset.json, the HDF5 files of embeddings/, sequences/ and cache/ their root
attributes, checkpoints/ a training.json, evaluations/ a results.json. Only captions/ and exports/ hold common formats
(`exports`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from icltool.errors import OtherVersionError, StoreError
from icltool.releases import __version__
from icltool.store import embeddings, evaluations, failures, image_features, prepared, sequences
from icltool.store.artefact import ForeignFileError, Header, open_h5, reading
from icltool.store.atomic import read_json
from icltool.store.inventory.exports import is_caption_file, is_export
from icltool.store.journal import journal_path
from icltool.store.out_of_order_rows import out_of_order_path
from icltool.store.workspace import TRAINED

COMPLETE, UNFINISHED, LEFTOVER, DAMAGED, OTHER = "complete", "unfinished", "leftover", "damaged", "other version"
#: The suffix of lists of failed work.
FAILED = ".failed.json"
#: The state of an interrupted training, and its temporary name.
_RESUME = ("resume.ckpt", ".resume.ckpt.new")
#: Journals up to this size are read to count finished records.
_COUNTED_BYTES = 1 << 26


@dataclass(frozen=True)
class Facts:
    """The facts about an artefact; "" and () if unknown. `state` is "complete", "unfinished" (its command resumes it),
    "leftover" (nothing reads it), "damaged" or "other version"; `note` has the details. `dataset`, `task` and
    `dataset_fingerprint` name what it was made from; `embeddings` holds the fingerprints of embeddings files, `sequences`
    the name of a sequences file, `files` paths of other artefacts; `stale` is the reason why this icltool would not read
    it.
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

    def noting(self, text: str) -> Facts:
        """The same facts with another note."""
        return replace(self, note=f"{self.note}; {text}" if self.note else text)


def inspect(kind: str, path: Path) -> Facts | None:
    """The facts about the artefact at `path` in the workspace's folder `kind`; None if icltool did not create it, since
    people keep their own files there. Raises nothing for a damaged one."""
    try:
        return _READERS[kind](path)
    except ForeignFileError:
        return None
    except StoreError as error:
        return Facts(
            OTHER if isinstance(error, OtherVersionError) else DAMAGED, error.message.replace(str(path), path.name)
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        return Facts(DAMAGED, f"malformed: {type(error).__name__} {error}")


def is_failures(path: Path) -> bool:
    """Whether the file is a list of failed work (`icltool.store.failures`)."""
    try:
        return path.name.endswith(FAILED) and read_json(path).get("schema") == failures.SCHEMA
    except (OSError, StoreError, ValueError, AttributeError):
        return False


def _made_from(record: Mapping[str, object]) -> Facts:
    """The facts about what an artefact was made from, by its configuration or identity."""
    dataset, task, fingerprint, features = (
        str(record.get(key) or "") for key in ("dataset", "task", "dataset_fingerprint", "embeddings_fingerprint")
    )
    return Facts(
        dataset=dataset,
        task=task,
        dataset_fingerprint=fingerprint,
        embeddings=(features,) if features else (),
    )


def _of_header(header: Header) -> Facts:
    provenance = header.provenance
    own = {
        "dataset_fingerprint": provenance.dataset_fingerprint,
        "embeddings_fingerprint": provenance.extra.get("embeddings_fingerprint"),
    }
    return replace(
        _made_from({**provenance.configuration, **own}),
        schema=header.schema.name,
        version=header.schema.version,
        created=header.created,
        icltool_version=header.icltool_version,
        fingerprint=header.fingerprint(),
    )


def _rows(path: Path, kind: type[embeddings.EmbeddingFile] | type[sequences.SequenceFile], column: str) -> Facts | None:
    """The facts about a file that is written row by row, with journals beside it until it is finished."""
    if not _is_h5(path):
        return None
    file, header = open_h5(path, kind.schema)
    with file, reading(path, kind.schema):
        complete, rows = bool(file.attrs["complete"]), len(file[column])
    journals = [p for p in (journal_path(path), out_of_order_path(path)) if p.is_file()]
    waiting = ""
    if not complete and journals:
        waiting = "; more wait for rows before them" if out_of_order_path(path) in journals else ""
        if all(p.stat().st_size <= _COUNTED_BYTES for p in journals):
            with kind.open(path) as merged:
                complete, rows, count = merged.complete, len(merged), merged.waiting()
            waiting = f"; {count:,} more wait for rows before them" if count else ""
    facts = _of_header(header)
    note = f"{rows:,} of {int(header.details['total']):,}{waiting}"
    return facts if complete else replace(facts, state=UNFINISHED, note=note)


def _is_h5(path: Path) -> bool:
    return path.suffix == ".h5" and (path.is_file() or path.is_symlink())


def _embeddings(path: Path) -> Facts | None:
    return _rows(path, embeddings.EmbeddingFile, "id")


def _sequences(path: Path) -> Facts | None:
    return _rows(path, sequences.SequenceFile, "query_id")


def _dataset(path: Path) -> Facts | None:
    manifest = (path / prepared.MANIFEST).exists()
    if not path.is_dir() or not (manifest or path.name == "source" or (path / "dataset_dict.json").exists()):
        return None
    if not manifest and path.name == "source":
        return Facts(note="files that its reader made")
    dataset = prepared.open_dataset(path)
    missing = [split for split in dataset.splits if not (path / split).is_dir()]
    return Facts(
        DAMAGED if missing else COMPLETE,
        f"split {missing[0]} is missing" if missing else "",
        prepared.SCHEMA,
        prepared.SCHEMA_VERSION,
        str(dataset.manifest.get("created", "")),
        str(dataset.manifest.get("icltool_version", "")),
        dataset.fingerprint,
        dataset.name,
        dataset.task,
        dataset.fingerprint,
    )


def _checkpoint(path: Path) -> Facts | None:
    """A training, even one that was stopped before it wrote weights: its lock stays beside the folder."""
    if not path.is_dir():
        return None
    if not (path / TRAINED).exists():
        usable = any((path / name).exists() for name in _RESUME) or any(path.glob("*.safetensors"))
        locked = path.with_name(f".{path.name}.lock").is_file()
        return Facts(UNFINISHED, "" if usable else "no weights yet") if usable or locked else None
    record = read_json(path / TRAINED)
    identity, provenance = record["identity"], record.get("provenance", {})
    missing = [name for name in record.get("checkpoints", {}).values() if not (path / name).is_file()]
    facts = replace(
        _made_from(identity),
        schema=str(record.get("schema", "")),
        version=int(record.get("schema_version", 0)) or None,
        icltool_version=str(provenance.get("icltool", "")),
        sequences=str(provenance.get("sequences") or ""),
        files=(identity["model_path"],) if isinstance(identity.get("model_path"), str) else (),
    )
    return replace(facts, state=DAMAGED, note=f"{missing[0]} does not exist") if missing else facts


def _evaluation(path: Path) -> Facts | None:
    """An evaluation, even one that was stopped before its first answer: its lock stays in the folder."""
    if not path.is_dir():
        return None
    if not (path / evaluations.RESULTS).exists():
        begun = (path / "predictions").is_dir() or (path / f".{evaluations.RESULTS}.lock").is_file()
        return Facts(UNFINISHED, "no setting is finished") if begun else None
    partial = len(list(path.glob("predictions/.*.part")))
    evaluation = evaluations.read_evaluation(path)
    configuration, results = evaluation.provenance.get("configuration", {}), evaluation.results
    files = [file for table in (configuration, *(r.extra.get("options") for r in results)) for file in _paths_in(table)]
    return replace(
        _made_from(configuration),
        state=UNFINISHED if partial else COMPLETE,
        note=f"{len(results)} settings" + (f", {partial} begun" if partial else ""),
        schema=evaluations.SCHEMA,
        version=evaluations.VERSION,
        files=tuple(dict.fromkeys(files)),
    )


def _paths_in(table: object) -> Iterator[str]:
    """The texts among the values of a mapping that may be paths."""
    for value in table.values() if isinstance(table, Mapping) else ():
        if isinstance(value, str) and "/" in value:
            yield value


def _captions(path: Path) -> Facts | None:
    return Facts() if _is_readable(is_caption_file, path) else None


def _export(path: Path) -> Facts | None:
    return Facts() if _is_readable(is_export, path) else None


def _is_readable(look: Callable[[Path], bool], path: Path) -> bool:
    """The result of `look`; False if the file cannot be read."""
    try:
        return look(path)
    except (OSError, ValueError):
        return False


def _cache(path: Path) -> Facts | None:
    if not _is_h5(path):
        return None
    file, header = open_h5(path, image_features.SCHEMA)
    file.close()
    facts = replace(_of_header(header), note=str(header.details["model"]))
    for library, made_with in header.provenance.configuration.items():
        current = _version(library)
        if current != made_with:
            facts = replace(facts, stale=f"made with {library} {made_with}, and {current} is installed")
    return facts


def _version(library: str) -> str:
    try:
        return __version__ if library == "icltool" else importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "none"


_READERS: dict[str, Callable[[Path], Facts | None]] = {
    "datasets": _dataset,
    "embeddings": _embeddings,
    "sequences": _sequences,
    "checkpoints": _checkpoint,
    "evaluations": _evaluation,
    "captions": _captions,
    "exports": _export,
    "cache": _cache,
}
