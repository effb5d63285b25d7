"""What lies in the workspace, and what of it is not in order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.commands.doctor.checks.rows import Row, row
from icltool.config.amounts import age_text, size_text
from icltool.store.inventory.artefact import KINDS
from icltool.store.inventory.inventory import inventory
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.inventory.artefact import Artefact

#: Names shown of each kind, and artefacts shown that are not in order.
_NAMES, _ODD = 5, 20


def artefacts(workspace: Path) -> list[Row]:
    """A row per kind, with all its artefacts as data, then those that are unfinished, damaged, left over or being written; the
    data of a last row hold those of them that there are no rows for."""
    if not workspace.is_dir():
        return [row("folder", f"{workspace} does not exist yet", "-", "`icltool prepare` makes it")]
    rows = [row("folder", workspace.absolute())]
    found = inventory(Workspace(workspace))
    for kind in KINDS:
        every = [a for a in found.artefacts if a.kind == kind]
        there = [a for a in every if a.state != "leftover"]
        if not every and kind in ("captions", "exports"):
            continue
        shown = ", ".join(a.name for a in there[:_NAMES])
        shown += f" and {len(there) - _NAMES} more" if len(there) > _NAMES else ""
        size = size_text(sum(a.bytes for a in there))
        note = "may be removed at any time: `icltool clean --kind cache`" if kind == "cache" and there else ""
        data = {"artefacts": [_told(a) for a in every]}
        rows.append(row(kind, f"{shown} ({size})" if there else "none", "ok" if there else "-", note, data))
    rows += _odd([a for a in found.artefacts if a.state != "complete" or a.held_by or a.unreachable])
    return rows + [row("left out", remark, "-") for remark in found.remarks]


def _told(artefact: Artefact) -> dict[str, object]:
    """All that is known of it but for its path."""
    facts = artefact.facts
    return {
        "kind": artefact.kind,
        "name": artefact.name,
        "schema": facts.schema,
        "schema_version": facts.version,
        "icltool_version": facts.icltool_version,
        "created": facts.created,
        "bytes": artefact.bytes,
        "age": round(max(0.0, time.time() - artefact.changed)),
        "state": artefact.state,
        "note": facts.note,
        "fingerprint": facts.fingerprint,
        "dataset_fingerprint": facts.dataset_fingerprint,
        "held_by": artefact.held_by,
        "used_by": artefact.used_by,
        "needed_by": list(artefact.needed_by),
        "unreachable": artefact.unreachable,
        "link": bool(artefact.link),
    }


def _odd(found: list[Artefact]) -> list[Row]:
    rows = []
    for artefact in found[:_ODD]:
        ways = {
            "damaged": "remove it and make it again",
            "other version": "use the icltool that made it, or make it again",
        }
        ways["leftover"] = "`icltool clean --leftovers` removes it"
        said = [artefact.state if artefact.state != "complete" else "", artefact.facts.note]
        said += [f"being written by {artefact.held_by}" if artefact.held_by else ""]
        said += [f"unreachable: {artefact.unreachable}" if artefact.unreachable else ""]
        told = "; ".join(filter(None, said)) + f" (changed {age_text(time.time() - artefact.changed)} ago)"
        status = "problem" if artefact.state in ("damaged", "other version") else "-"
        rows.append(row(artefact.label, told, status, ways.get(artefact.state, ""), _told(artefact)))
    if len(found) > _ODD:
        data = {"artefacts": [_told(artefact) for artefact in found[_ODD:]]}
        rows.append(row("and more", f"{len(found) - _ODD} artefacts", "-", "`icltool clean` lists all", data))
    return rows
