"""The examples behind ids, out of prepared data sets that may have changed, or be gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from icltool.config.datasets import chosen_dataset
from icltool.contracts import Example, as_query
from icltool.errors import ConfigError, StoreError
from icltool.store.failures import failures_file, read_failures
from icltool.store.records import PreparedDataset
from icltool.store.workspace import Workspace


@dataclass(frozen=True, slots=True)
class DatasetKey:
    """A data set in one version of it; `fingerprint` is "" where an artefact does not tell. `queries` is the split of its
    queries."""

    name: str
    task: str
    fingerprint: str
    queries: str = "validation"

    @property
    def label(self) -> str:
        """ "NAME (TASK)", with ", train queries" where the index set itself was asked."""
        named = f"{self.name} ({self.task})" if self.task else self.name
        return f"{named}, {self.queries} queries" if self.queries != "validation" else named


class Examples:
    """Looks examples up in the prepared data set `key`. `remarks` say why there are none, or which are missing; `changed` is
    whether another version of it is prepared in its place.

    `workspaces` are looked through in order for one with the fingerprint.
    """

    def __init__(self, key: DatasetKey, workspaces: Iterable[Path]) -> None:
        self.key = key
        self.remarks: list[str] = []
        self.changed = False
        self.dataset = self._opened(workspaces)

    def load_queries(self, split: str, ids: Iterable[int]) -> dict[int, Example]:
        """The examples as queries, see `load`."""
        return {id: as_query(example) for id, example in self.load(split, ids).items()}

    def load(self, split: str, ids: Iterable[int]) -> dict[int, Example]:
        """The examples of `split` with these ids; those that are not there are left out, and remarked."""
        if self.dataset is None:
            return {}
        try:
            records = self.dataset.split(split)
            queried = sorted(set(ids))
            known = set(records.ids.tolist())
            there = [one for one in queried if one in known]
            rows = records.rows([records.row_of(one) for one in there])
        except StoreError as error:
            self.remarks.append(f"{error.message}: {_MISSING}")
            return {}
        if len(there) < len(queried):
            missing = next(one for one in queried if one not in known)
            self.remarks.append(
                f"{self.key.label}: {len(queried) - len(there)} examples are not in split {split} (the first is {missing})"
            )
        return {example.id: example for example in rows}

    def size(self, split: str) -> int | None:
        """How many examples the split has; None where that is not known."""
        try:
            return None if self.dataset is None else len(self.dataset.split(split))
        except StoreError:
            return None

    def _opened(self, workspaces: Iterable[Path]) -> PreparedDataset | None:
        if not self.key.name or not self.key.task:
            self.remarks.append(f"the artefact does not say which data set it is of: {_MISSING}")
            return None
        faults: list[str] = []
        for root in dict.fromkeys(workspaces):
            try:
                dataset = chosen_dataset(Workspace(root), self.key.name, self.key.task)
            except (StoreError, ConfigError) as error:
                faults.append(error.message)
                continue
            if self.key.fingerprint in ("", dataset.fingerprint):
                self.changed = False
                return dataset
            self.changed = True
            faults.insert(0, f"{self.key.label} in {root} is another version than the one that was used")
        self.remarks.append(f"{faults[0] if faults else f'{self.key.label} is not prepared'}: {_MISSING}")
        return None


#: Settings that a remark names.
_NAMED = 3
_MISSING = "questions and the texts of demonstrations are missing"


def given_up(artefact: Path, command: str) -> list[str]:
    """A line about work that the last run gave up, where there is a list of it beside the artefact."""
    try:
        failures = read_failures(artefact)
        if not failures:
            return []
        lost = sum(entry.get("count", 1) for entry in failures)
        return [
            f"{lost:,} queries or anchors were given up, the first: {failures[0].get('error')}; run `{command}` again"
        ]
    except StoreError:
        return [f"{failures_file(artefact)} lists what was given up, and cannot be read"]


def unfinished(evaluation: Path) -> list[str]:
    """A line about the settings that an evaluation has begun, where it was interrupted or still runs."""
    begun = sorted(part.name[1:].removesuffix(".jsonl.part") for part in evaluation.glob("predictions/.*.part"))
    if not begun:
        return []
    named = ", ".join(begun[:_NAMED]) + (f" and {len(begun) - _NAMED} more" if len(begun) > _NAMED else "")
    plural = "s" * (len(begun) > 1)
    return [f"unfinished: {len(begun)} setting{plural} begun ({named}); run `icltool evaluate` again to go on"]


def workspaces_of(artefact: Path, folder: str, workspace: Path) -> Sequence[Path]:
    """Where the data set of an artefact may lie: in the workspace that it is in, if its parent is called `folder`, else in
    `workspace`."""
    parent = artefact.absolute().parent
    return [parent.parent, workspace] if parent.name == folder else [workspace]
