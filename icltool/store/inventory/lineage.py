"""Which artefact was made from which: what can no longer be reached, and what others need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from icltool.errors import StoreError
from icltool.store.inventory.artefact import Artefact
from icltool.store.inventory.inspection import COMPLETE, LEFTOVER, UNFINISHED, Facts
from icltool.store.prepared import open_dataset
from icltool.store.workspace import Workspace

#: Kinds that are made from a prepared data set, and are of no use beside another one.
_OF_DATA = ("embeddings", "sequences", "checkpoints", "evaluations")


def related(artefacts: Sequence[Artefact], workspace: Workspace) -> list[Artefact]:
    """The artefacts of the workspace with `unreachable`, `needed_by` and `used_by` filled in.

    Unreachable is what no command goes on with: its data set is gone or has another fingerprint, the source of data sets that
    are all gone, a cache made by other versions. An artefact of other options
    is none, neither is one that says nothing of where it comes from, and neither is a finished training whose sequences are
    gone, which can be evaluated still: its note says so.
    """
    lineage = _Lineage(artefacts, _fingerprints(workspace))
    return [
        replace(
            artefact,
            facts=lineage.facts(artefact),
            unreachable=lineage.unreachable(artefact),
            needed_by=tuple(lineage.needed_by(artefact)),
            used_by=lineage.used_by(artefact),
        )
        for artefact in artefacts
    ]


class _Lineage:
    def __init__(self, artefacts: Sequence[Artefact], fingerprints: dict[tuple[str, str], str]) -> None:
        self._fingerprints = fingerprints
        self._whole = whole = [a for a in artefacts if a.state != LEFTOVER]
        self._prepared = {a.name: a for a in whole if a.kind == "datasets" and a.path.name != "source"}
        self._sources = {a.name.split("/")[0]: a for a in whole if a.kind == "datasets" and a.path.name == "source"}
        self._sequences = {a.name: a for a in whole if a.kind == "sequences"}
        self._embeddings = {a.facts.fingerprint: a for a in whole if a.kind == "embeddings" and a.facts.fingerprint}
        self._folders = {_resolved(a.path): a for a in whole if a.kind in ("checkpoints", "sequences", "exports")}
        self._users: dict[str, list[str]] = {}
        for artefact in whole:
            for source in dict.fromkeys(a.label for a in self._sources_of(artefact)):
                if source != artefact.label:
                    self._users.setdefault(source, []).append(artefact.label)
        self._used: dict[str, str] = {}
        for artefact in whole:
            if artefact.held_by:
                self._mark(artefact, f"{artefact.held_by}, which writes {artefact.label}")

    def _mark(self, writer: Artefact, by: str) -> None:
        """Notes that `by` uses all that `writer` is made from, and what that is made from in turn."""
        waiting = [*self._sources_of(writer), *self._untold(writer)]
        seen = {writer.label}
        while waiting:
            source = waiting.pop()
            if source.label not in seen:
                seen.add(source.label)
                self._used.setdefault(source.label, by)
                waiting += self._sources_of(source)

    def _untold(self, writer: Artefact) -> list[Artefact]:
        """What an artefact that is being written may be made from without saying so yet: a training tells nothing before it
        ends, an evaluation never names embeddings. It is all of its data set and task, by its name where that tells alone."""
        if writer.kind == "checkpoints" and not writer.facts.dataset:
            kinds = ("datasets", "embeddings", "sequences")
        elif writer.kind == "evaluations":
            kinds = ("datasets", "embeddings", "checkpoints")
        else:
            return []
        named = writer.facts.dataset, writer.facts.task
        found = [a for a in self._whole if a.kind in kinds and a.path.name != "source"]
        if named[0]:
            return [a for a in found if _of(a) == named]
        return [a for a in found if f"-{'-'.join(_of(a))}-" in f"-{writer.name}"]

    def facts(self, artefact: Artefact) -> Facts:
        """Its facts, with a note where a training's sequences are not there."""
        facts = artefact.facts
        if not facts.sequences or facts.sequences in self._sequences:
            return facts
        gone = f"its sequences {facts.sequences} are not in the workspace"
        return replace(facts, note=f"{facts.note}; {gone}" if facts.note else gone)

    def needed_by(self, artefact: Artefact) -> list[str]:
        return self._users.get(artefact.label, []) if artefact.state != LEFTOVER else []

    def used_by(self, artefact: Artefact) -> str:
        return self._used.get(artefact.label, "")

    def unreachable(self, artefact: Artefact) -> str:
        """Why; "" where it can be reached, or nothing is known."""
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
        prepared = self._fingerprints.get((facts.dataset, facts.task))
        if prepared is None:
            return f"its data set {named} is gone"
        if prepared not in ("", facts.dataset_fingerprint):
            return f"its data set {named} has changed"
        return facts.stale

    def _sources_of(self, artefact: Artefact) -> Iterable[Artefact]:
        """What it was made from, as far as that is in the workspace."""
        facts = artefact.facts
        if artefact.kind == "datasets":
            source = self._sources.get(artefact.name.split("/")[0])
            if source is not None and artefact.path.name != "source":
                yield source
            return
        prepared = self._prepared.get(f"{facts.dataset}/{facts.task}")
        if prepared is not None and prepared.facts.fingerprint == facts.dataset_fingerprint:
            yield prepared
        for fingerprint in facts.embeddings:
            if fingerprint in self._embeddings:
                yield self._embeddings[fingerprint]
        if facts.sequences in self._sequences:
            yield self._sequences[facts.sequences]
        for file in facts.files:
            found = self._folders.get(_resolved(Path(file)))
            if found is not None:
                yield found


def _fingerprints(workspace: Workspace) -> dict[tuple[str, str], str]:
    """The fingerprint of every prepared data set by name and task, also behind links; "" where it cannot be read."""
    found = {}
    for name, task in workspace.prepared():
        try:
            found[name, task] = open_dataset(workspace.dataset_folder(name, task)).fingerprint
        except StoreError:
            found[name, task] = ""
    return found


def _of(artefact: Artefact) -> tuple[str, str]:
    """(data set, task) that an artefact says it is of."""
    return artefact.facts.dataset, artefact.facts.task


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path
