"""Which artefact was made from which: what is unreachable, and what others need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from icltool.errors import StoreError
from icltool.store.inventory.artefact import Artefact
from icltool.store.inventory.inspection import COMPLETE, LEFTOVER, UNFINISHED, Facts
from icltool.store.paired import names_of_pair, pair_fingerprint
from icltool.store.prepared import open_dataset
from icltool.store.workspace import Workspace

#: Kinds that are made from a prepared data set, and are useless with another one.
_OF_DATA = ("embeddings", "sequences", "checkpoints", "evaluations")
#: Kinds that may need artefacts before their record names them: a training writes no record before it ends, an
#: evaluation never names embeddings.
_UNRECORDED = {
    "checkpoints": ("datasets", "embeddings", "sequences"),
    "evaluations": ("datasets", "embeddings", "checkpoints"),
}


def related(artefacts: Sequence[Artefact], workspace: Workspace) -> list[Artefact]:
    """The artefacts of the workspace with `unreachable`, `needed_by` and `used_by` filled in.

    An artefact is unreachable if no command can use it: its data set is gone or has another fingerprint, it is the source
    of data sets that are all gone, or it is a cache of other versions. Artefacts made with different options, artefacts of
    unknown origin, and a finished training whose sequences are gone, which can still be evaluated (its note says so), are
    reachable.
    """
    lineage = _Lineage([a for a in artefacts if a.state != LEFTOVER], _fingerprints(workspace))
    return [
        replace(
            artefact,
            facts=lineage.facts(artefact),
            unreachable=lineage.unreachable(artefact),
            needed_by=tuple(lineage.users.get(artefact.label, ())),
            used_by=lineage.used_by.get(artefact.label, ""),
        )
        for artefact in artefacts
    ]


class _Lineage:
    """`users` holds the labels of what was made from an artefact, `used_by` the process that is writing something made from
    it; `whole` are all artefacts except leftovers, `fingerprints` those of the prepared data sets by name and task."""

    def __init__(self, whole: Sequence[Artefact], fingerprints: dict[tuple[str, str], str]) -> None:
        self._whole, self._fingerprints = whole, fingerprints
        self._names = {(a.kind, a.name): a for a in whole}
        self._embeddings = {a.facts.fingerprint: a for a in whole if a.kind == "embeddings" and a.facts.fingerprint}
        self._folders = {_resolved(a.path): a for a in whole if a.kind in ("checkpoints", "sequences", "exports")}
        self.users: dict[str, list[str]] = {}
        self.used_by: dict[str, str] = {}
        for artefact in whole:
            for source in dict.fromkeys(a.label for a in self._sources_of(artefact) if a is not artefact):
                self.users.setdefault(source, []).append(artefact.label)
        for artefact in whole:
            if artefact.held_by:
                self._mark(artefact, f"{artefact.held_by}, which writes {artefact.label}")

    def _mark(self, writer: Artefact, by: str) -> None:
        """Records that `by` uses everything that `writer` is made from, directly or indirectly."""
        waiting = [*self._sources_of(writer), *self._possible_sources(writer)]
        seen = {writer.label}
        while waiting:
            source = waiting.pop()
            if source.label not in seen:
                seen.add(source.label)
                self.used_by.setdefault(source.label, by)
                waiting += self._sources_of(source)

    def _possible_sources(self, writer: Artefact) -> list[Artefact]:
        """What an artefact that is being written may be made from, before its record names it: everything of its data set
        and task, as given by its name if it has no record."""
        dataset = writer.facts.dataset
        kinds = () if writer.kind == "checkpoints" and dataset else _UNRECORDED.get(writer.kind, ())
        return [
            a
            for a in self._whole
            if a.kind in kinds
            and a.path.name != "source"
            and (_of(a) == _of(writer) if dataset else f"-{'-'.join(_of(a))}-" in f"-{writer.name}")
        ]

    def facts(self, artefact: Artefact) -> Facts:
        """Its facts, with a note if a training's sequences are missing."""
        facts = artefact.facts
        if not facts.sequences or ("sequences", facts.sequences) in self._names:
            return facts
        return facts.noting(f"its sequences {facts.sequences} are not in the workspace")

    def unreachable(self, artefact: Artefact) -> str:
        """The reason; "" if it is reachable or nothing is known."""
        facts = artefact.facts
        if artefact.state not in (COMPLETE, UNFINISHED):
            return ""
        if artefact.kind == "datasets":
            name = artefact.name.split("/")[0]
            alone = artefact.path.name == "source" and not any(other == name for other, _ in self._fingerprints)
            return f"no data set {name} is prepared from it" if alone else ""
        if artefact.kind not in _OF_DATA or not facts.dataset or not facts.dataset_fingerprint:
            return facts.stale
        named = f"{facts.dataset} ({facts.task})"
        prepared = self._prepared_as(artefact)
        if prepared is None:
            return f"its data set {named} is gone"
        if prepared not in ("", facts.dataset_fingerprint):
            return f"its data set {named} has changed"
        return facts.stale

    def _prepared_as(self, artefact: Artefact) -> str | None:
        """The fingerprint of the prepared data set, or pair of data sets, that an artefact is of; None if it is not there."""
        names = self._of_pair(artefact)
        if names is None:
            return self._fingerprints.get(_of(artefact))
        queries, index = (self._fingerprints[name, artefact.facts.task] for name in names)
        return pair_fingerprint(queries, index)

    def _of_pair(self, artefact: Artefact) -> tuple[str, str] | None:
        prepared = {name for name, task in self._fingerprints if task == artefact.facts.task}
        return names_of_pair(artefact.facts.dataset, prepared)

    def _sources_of(self, artefact: Artefact) -> Iterator[Artefact]:
        """The artefacts in the workspace that it was made from."""
        facts = artefact.facts
        if artefact.kind == "datasets":
            source = self._names.get(("datasets", f"{artefact.name.split('/')[0]}/source"))
            if source is not None and artefact is not source:
                yield source
            return
        prepared = self._names.get(("datasets", f"{facts.dataset}/{facts.task}"))
        if prepared is not None and prepared.facts.fingerprint == facts.dataset_fingerprint:
            yield prepared
        for name in self._of_pair(artefact) or ():
            yield from filter(None, [self._names.get(("datasets", f"{name}/{facts.task}"))])
        yield from (self._embeddings[mark] for mark in facts.embeddings if mark in self._embeddings)
        if ("sequences", facts.sequences) in self._names:
            yield self._names["sequences", facts.sequences]
        places = map(_resolved, map(Path, facts.files))
        yield from (self._folders[place] for place in places if place in self._folders)


def _fingerprints(workspace: Workspace) -> dict[tuple[str, str], str]:
    """The fingerprint of every prepared data set by name and task, including links; "" if it cannot be read."""
    fingerprints = {}
    for name, task in workspace.prepared():
        try:
            fingerprints[name, task] = open_dataset(workspace.dataset_folder(name, task)).fingerprint
        except StoreError:
            fingerprints[name, task] = ""
    return fingerprints


def _of(artefact: Artefact) -> tuple[str, str]:
    """The (data set, task) in an artefact's record."""
    return artefact.facts.dataset, artefact.facts.task


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path
