"""Lists the artefacts of the workspace, and removes those that were chosen.

Reads: every folder of the workspace; only the headers of artefacts
Writes: nothing; removes the chosen artefacts
"""

from __future__ import annotations

import datetime
import fnmatch
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icltool.commands.clean.options import CleanConfig
from icltool.config.amounts import age_text, size_text
from icltool.contracts import Progress
from icltool.errors import ConfigError, StoreError, closest
from icltool.store.inventory.artefact import Artefact
from icltool.store.inventory.inventory import inventory, is_finished
from icltool.store.inventory.removal import remove
from icltool.store.workspace import Workspace


@dataclass(frozen=True)
class CleanReport:
    """The chosen artefacts (all of them without a choice), and which of them were removed.

    `removed` holds the labels of the removed ones, `freed` their bytes, `faults` why others could not be removed; `now` is
    the time (seconds since the epoch) from which ages are computed.
    """

    title: str
    workspace: Path
    artefacts: tuple[Artefact, ...]
    now: float
    remarks: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    freed: int = 0
    faults: tuple[str, ...] = ()
    #: Nothing is written.
    path: Path | None = None

    @property
    def free(self) -> tuple[Artefact, ...]:
        """Those that no process is writing or using."""
        return tuple(a for a in self.artefacts if not (a.held_by or a.used_by))

    def rows(self) -> list[dict[str, object]]:
        """One row per artefact, for programs: sizes in bytes, ages in seconds, times in UTC."""
        return [
            {
                **a.record(self.now),
                "path": str(a.path),
                "files": a.files,
                "changed": _utc(a.changed),
                "link": a.link,
                "removed": a.label in self.removed,
            }
            for a in self.artefacts
        ]

    def entries(self) -> dict[str, list[tuple[str, str]]]:
        """(name, text) of the artefacts, by kind, for people."""
        entries: dict[str, list[tuple[str, str]]] = {}
        for a in self.artefacts:
            facts = [size_text(a.bytes), f"changed {age_text(self.now - a.changed)} ago"]
            facts += [a.state] if a.state != "complete" else []
            entries.setdefault(a.kind, []).append((a.name, "; ".join([", ".join(facts), *a.remarks()])))
        return entries

    def lines(self) -> list[str]:
        return list(self.remarks)

    def summary(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "title": self.title,
            "workspace": str(self.workspace),
            "rows": self.rows(),
            "notes": self.lines(),
            "removed": len(self.removed),
            "freed": self.freed,
            "faults": list(self.faults),
        }


def plan(config: CleanConfig, progress: Progress) -> CleanReport:
    """The artefacts that would be removed; without a choice, all of them.

    Raises StoreError if the workspace does not exist, ConfigError for a name that no artefact has.
    """
    workspace = Workspace(config.workspace)
    if not workspace.root.is_dir():
        raise StoreError(f"workspace {workspace.root} does not exist", "check --workspace, or ICLTOOL_WORKSPACE")
    progress.detail(f"reading {workspace.root}")
    contents, now = inventory(workspace), time.time()
    chosen = _chosen(config, contents.artefacts, workspace, now)
    action = " to remove" if config.selects else ""
    title = f"{_counted(chosen)}{action} in {workspace.root}"
    remarks = [*contents.remarks, *(_warnings(chosen) if config.selects else _advice(contents.artefacts))]
    return CleanReport(title, workspace.root, tuple(chosen), now, tuple(remarks))


def run(report: CleanReport, progress: Progress) -> CleanReport:
    """Removes the artefacts of a plan, sources after the artefacts made from them. `faults` names those that cannot be
    removed; the others are removed all the same. Ctrl-C leaves the current one as a leftover."""
    using = {
        a.label: a.used_by for a in inventory(Workspace(report.workspace)).artefacts
    }  # it may have changed while the user was asked
    report = replace(report, artefacts=tuple(replace(a, used_by=using.get(a.label, "")) for a in report.artefacts))
    removed, faults, freed = [], [_busy(a) for a in report.artefacts if a.held_by or a.used_by], 0
    waiting = list(reversed(report.free))
    with progress.task("removing", sum(a.files for a in waiting), "files") as ticker:
        for artefact in waiting:
            try:
                freed += remove(artefact, ticker.advance)
            except StoreError as error:
                faults.append(error.message + (f" ({error.hint})" if error.hint else ""))
            else:
                removed.append(artefact.label)
                progress.detail(f"removed {artefact.path}")
    counted = f"{len(removed)} artefact{'s' * (len(removed) != 1)}"
    title = f"removed {counted}, {size_text(freed)} freed" + (f"; {len(faults)} could not be removed" if faults else "")
    return replace(report, title=title, removed=tuple(removed), freed=freed, faults=tuple(faults))


def question(report: CleanReport) -> str:
    """The question before anything is removed."""
    return f"remove {_counted(report.free)}?"


def _chosen(config: CleanConfig, artefacts: Sequence[Artefact], workspace: Workspace, now: float) -> list[Artefact]:
    named = None if not config.names else {a.label for name in config.names for a in _named(name, artefacts, workspace)}
    return [
        a
        for a in artefacts
        if (named is None or a.label in named)
        and (not config.kind or a.kind in config.kind)
        and (config.older_than is None or now - a.changed > config.older_than)
        and (config.larger_than is None or a.bytes > config.larger_than)
        and (not config.unreachable or a.unreachable)
        and (not config.leftovers or a.state == "leftover")
    ]


def _named(name: str, artefacts: Sequence[Artefact], workspace: Workspace) -> list[Artefact]:
    """The artefacts of this name, path or pattern. ConfigError if there are none, or two kinds have the name."""
    label = name.rstrip("/")
    for root in (workspace.root, workspace.root.absolute()):
        label = label.removeprefix(f"{root}/")
    label = label.removeprefix("./")
    matches = [a for a in artefacts if label in (a.label, a.name)]
    if len({a.kind for a in matches}) > 1:
        both = " or ".join(a.label for a in matches)
        raise ConfigError(f"{name!r} may be {both}", "give KIND/NAME")
    if not matches and any(sign in label for sign in "*?["):
        matches = [a for a in artefacts if fnmatch.fnmatchcase(a.label, label) or fnmatch.fnmatchcase(a.name, label)]
    if not matches:
        close = closest(label, [a.label for a in artefacts]) or closest(label, [a.name for a in artefacts])
        hint = f"did you mean {close!r}?" if close else f"`icltool clean --workspace {workspace.root}` lists them"
        raise ConfigError(f"no artefact {name!r} in {workspace.root}", hint)
    return matches


def _warnings(chosen: Sequence[Artefact]) -> list[str]:
    """Warnings before these are removed."""
    labels = {a.label for a in chosen}
    lines = []
    for artefact in chosen:
        needed = [label for label in artefact.needed_by if label not in labels]
        if needed:
            more = f" and {len(needed) - 3} more" if len(needed) > 3 else ""
            lines.append(f"warning: {artefact.label} is needed by {', '.join(needed[:3])}{more}")
    lines += [f"{_busy(a)}: it is not removed" for a in chosen if a.held_by or a.used_by]
    lost = [a for a in chosen if a.unreachable and is_finished(a) and a.kind in ("checkpoints", "evaluations")]
    if lost:
        lines.append(
            f"warning: {len(lost)} of them hold finished results that cannot be reproduced from this workspace"
        )
    return lines


def _busy(artefact: Artefact) -> str:
    """Which process writes or uses it."""
    use = f"being written by {artefact.held_by}" if artefact.held_by else f"in use by {artefact.used_by}"
    return f"{artefact.label} is {use}"


def _advice(artefacts: Sequence[Artefact]) -> list[str]:
    """What can be removed without loss."""
    leftovers = [a for a in artefacts if a.state == "leftover"]
    cache = [a for a in artefacts if a.kind == "cache"]
    lines = []
    if leftovers:
        lines.append(f"{_counted(leftovers)} left by killed runs: `icltool clean --leftovers`")
    if cache:
        lines.append(f"{_counted(cache)} only save time: `icltool clean --kind cache`")
    return lines


def _counted(artefacts: Sequence[Artefact]) -> str:
    plural = "s" * (len(artefacts) != 1)
    return f"{len(artefacts)} artefact{plural}, {size_text(sum(a.bytes for a in artefacts))}"


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")
