"""The entry of an artefact in an inventory."""

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
    """Something that can be removed as a whole. `kind` is the folder of the workspace that it is in, `name` its path there.
    `path` is the file or folder, `parts` the files beside it that are removed with it. `bytes` and `files` count all of
    them, `changed` is the time of the last change (seconds since the epoch). `lock` is the artefact whose writer's lock
    must be held to remove it (None: there is no such lock), `held_by` the process that holds it, `used_by` the process that
    is writing something made from it. `link` is the target of `path` if it is a link. `unreachable` is the reason why no
    command can use it any more, `needed_by` names the artefacts that were made from it.
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
        """KIND/NAME, which is unique."""
        return f"{self.kind}/{self.name}"

    def remarks(self) -> list[str]:
        """Remarks on it, in words."""
        said = [self.facts.note]
        said += [f"being written by {self.held_by}"] if self.held_by else []
        said += [f"in use by {self.used_by}"] if self.used_by else []
        said += [f"needed by {len(self.needed_by)}"] if self.needed_by else []
        said += [f"unreachable: {self.unreachable}"] if self.unreachable else []
        said += [f"link to {self.link}"] if self.link else []
        return [text for text in said if text]

    def record(self, now: float) -> dict[str, object]:
        """Its entry for programs, with `bytes` and its `age` in seconds at the time `now`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "bytes": self.bytes,
            "age": round(max(0.0, now - self.changed)),
            "state": self.state,
            "note": self.facts.note,
            "unreachable": self.unreachable,
            "needed_by": list(self.needed_by),
            "held_by": self.held_by,
            "used_by": self.used_by,
        }


@dataclass(frozen=True)
class Inventory:
    """The artefacts, by kind and name, and remarks on what was left out of the list."""

    artefacts: tuple[Artefact, ...]
    remarks: tuple[str, ...] = ()
