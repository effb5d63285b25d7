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
    contents = inventory(Workspace(workspace))
    for kind in KINDS:
        every = [a for a in contents.artefacts if a.kind == kind]
        present = [a for a in every if a.state != "leftover"]
        if not every and kind in ("captions", "exports"):
            continue
        names = ", ".join(a.name for a in present[:_NAMES])
        names += f" and {len(present) - _NAMES} more" if len(present) > _NAMES else ""
        size = size_text(sum(a.bytes for a in present))
        note = "may be removed at any time: `icltool clean --kind cache`" if kind == "cache" and present else ""
        data = {"artefacts": [_described(a) for a in every]}
        rows.append(row(kind, f"{names} ({size})" if present else "none", "ok" if present else "-", note, data))
    rows += _odd([a for a in contents.artefacts if a.state != "complete" or a.held_by or a.unreachable])
    return rows + [row("left out", remark, "-") for remark in contents.remarks]


def _described(artefact: Artefact) -> dict[str, object]:
    """All that is known of it but for its path."""
    facts = artefact.facts
    return {
        **artefact.record(time.time()),
        "schema": facts.schema,
        "schema_version": facts.version,
        "icltool_version": facts.icltool_version,
        "created": facts.created,
        "fingerprint": facts.fingerprint,
        "dataset_fingerprint": facts.dataset_fingerprint,
        "link": bool(artefact.link),
    }


#: What to do about an artefact in a state that is not in order.
_WAYS = {
    "damaged": "remove it and make it again",
    "other version": "use the icltool that made it, or make it again",
    "leftover": "`icltool clean --leftovers` removes it",
}


def _odd(artefacts: list[Artefact]) -> list[Row]:
    rows = []
    for artefact in artefacts[:_ODD]:
        said = [artefact.state if artefact.state != "complete" else "", *artefact.remarks()]
        summary = "; ".join(filter(None, said)) + f" (changed {age_text(time.time() - artefact.changed)} ago)"
        status = "problem" if artefact.state in ("damaged", "other version") else "-"
        rows.append(row(artefact.label, summary, status, _WAYS.get(artefact.state, ""), _described(artefact)))
    if len(artefacts) > _ODD:
        data = {"artefacts": [_described(artefact) for artefact in artefacts[_ODD:]]}
        rows.append(row("and more", f"{len(artefacts) - _ODD} artefacts", "-", "`icltool clean` lists all", data))
    return rows
