"""The file of captions: written at the end as a whole; until then a journal beside it holds the finished captions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from icltool.commands.caption.entries import Entry
from icltool.errors import StoreError
from icltool.store.artefact import canonical_json
from icltool.store.atomic import check_writable, read_json, remove_leftovers, write_json, writing
from icltool.store.journal import Journal, journal_path, remove_journal
from icltool.store.locking import locked


def check_target(file: Path, overwrite: bool, sources: Sequence[Path | None] = ()) -> None:
    """StoreError if `file` is a folder, exists and must not be replaced, is one of the `sources`, or cannot be written."""
    if file.is_dir():
        raise StoreError(f"--output {file} is a folder", "give a file")
    if file.exists() and not overwrite:
        raise StoreError(f"{file} already exists", "add --overwrite, or give another --output")
    for source in sources:
        if source is not None and _same(file, source):
            raise StoreError(
                f"--output {file} is an input file, which the captions would replace", "give another --output"
            )
    check_writable(file)


def finished_captions(file: Path, call: Mapping[str, object]) -> list[dict[str, object]] | None:
    """The results in `file` if the same call finished them, else None. Leftovers of a killed run beside it are removed."""
    try:
        content = read_json(file)
        if canonical_json(content["settings"]["call"]) != canonical_json(dict(call)):
            return None
        results = [dict(entry) for entry in content["results"]]
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    with locked(file):
        remove_journal(journal_path(file))
    return results


def _same(one: Path, other: Path) -> bool:
    """Whether both are one file, with links resolved."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is missing
        return one.resolve() == other.resolve()


class Captions:
    """Captions by position in the input; `done` of them were finished by an earlier run of the same command."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.finished: list[dict[str, object]] = []
        for entry in journal.entries:
            self.finished += json.loads(journal.read(entry))
        self.done = len(self.finished)

    def add(self, answers: Sequence[Mapping[str, object]]) -> None:
        """Stores captions; a rerun resumes after them once this has returned."""
        self._journal.append(json.dumps(list(answers), ensure_ascii=False).encode())
        self.finished += [dict(answer) for answer in answers]


@contextmanager
def captions_for(file: Path, identity: Mapping[str, object], overwrite: bool) -> Iterator[Captions]:
    """The captions for `file`, which is locked until the end of the block. `identity` is all that decides them.

    StoreError if another process writes them, or another call left unfinished ones (`overwrite` drops those).
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file):
        check_target(file, overwrite)
        remove_leftovers(file)
        remove_leftovers(journal_path(file))
        journal = _journal(file, dict(identity), overwrite)
        try:
            yield Captions(journal)
        finally:
            journal.close()


def write_captions(
    file: Path, entries: Sequence[Entry], answers: Sequence[Mapping[str, object]], head: Mapping[str, object]
) -> list[dict[str, object]]:
    """Writes `head` and the results, and removes the journal; the results, in the order of the entries."""
    results = []
    for entry, answer in zip(entries, answers, strict=True):
        fields = dict(entry.fields)
        reference = {"reference": fields.pop("reference")} if "reference" in fields else {}
        results.append({**fields, **answer, **reference})
    write_json(file, {**head, "results": results})
    remove_journal(journal_path(file))
    return results


def _journal(file: Path, identity: dict[str, object], overwrite: bool) -> Journal:
    path = journal_path(file)
    if not path.exists():
        return Journal.create(path, identity)
    journal = Journal(path, writable=True)
    if canonical_json(journal.identity) == canonical_json(identity):
        return journal
    journal.close()
    if overwrite:
        return Journal.create(path, identity)
    changed = sorted(
        key for key in identity if canonical_json(journal.identity.get(key)) != canonical_json(identity[key])
    )
    raise StoreError(
        f"{path} contains unfinished captions made with different {', '.join(changed) or 'options'}",
        "finish that call, give another --output, or drop them with --overwrite",
    )
