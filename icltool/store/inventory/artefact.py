"""What an inventory says of each artefact."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from icltool.store.inventory.inspection import Facts

#: The folders of a workspace, which are also the kinds of artefacts, in the order of the pipeline.
KINDS = (
    "datasets", "embeddings", "sequences", "checkpoints", "evaluations", "captions", "exports", "cache",
)  # fmt: skip


@dataclass(frozen=True)
class Artefact:
    """One thing that can be removed as a whole.

    `kind` is the workspace's folder that it lies in, `name` its path in there. `path` is the file or folder, `parts` what lies
    beside it and goes with it. `bytes` and `files` count all of them, `changed` is when any was last modified (seconds since
    the epoch). `lock` is the artefact whose writer's lock must be held to remove it (None: there is no such lock), `held_by`
    who holds it, `used_by` who writes something that is made from this one. `link` is where `path` points to if it is a
    link. `unreachable` says why nothing can be made from it any more, `needed_by` names the artefacts that were made from it.
    """

    kind: str
    name: str
    path: Path
    facts: Facts
    bytes: int
    files: int
    changed: float
    parts: tuple[Path, ...] = ()
    lock: Path | None = None
    held_by: str = ""
    link: str = ""
    unreachable: str = ""
    needed_by: tuple[str, ...] = field(default=())
    used_by: str = ""

    @property
    def state(self) -> str:
        return self.facts.state

    @property
    def label(self) -> str:
        """KIND/NAME, which no other artefact has."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Inventory:
    """The artefacts, by kind and name, and remarks on what was left out of the list."""

    artefacts: tuple[Artefact, ...]
    remarks: tuple[str, ...] = ()
