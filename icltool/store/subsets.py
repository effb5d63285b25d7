"""Subsets of an index set: the examples that methods choose from, as a JSON file, or as a plain list of ids, one per line.

{"schema": "icltool.subset", "version": 1, "dataset": "coco2017", "task": "caption", "fingerprint": "…",
 "queries": "train", "made": {…}, "subset": {"EXAMPLE ID": score, …}}

Only schema, version and `subset` are needed. `queries` is the split of the queries whose figures the scores were learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, JsonValue, ValidationError

from icltool.contracts import IntArray, read_whole
from icltool.contracts.json import Json
from icltool.errors import StoreError
from icltool.store.atomic import write_json

SCHEMA = "icltool.subset"
VERSION = 1

_AGAIN = "give a file of a learner of subsets, or a list of ids, one a line"
_Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]


@dataclass(frozen=True)
class Subset:
    """Scores by example id; None where an example has none.

    `dataset`, `task` and `fingerprint` name the data set as it was prepared, `queries` the split of the queries that the
    scores were learned from; None if the file does not name them. `made` records how the subset was created.
    """

    scores: Mapping[int, float | None]
    dataset: str | None = None
    task: str | None = None
    fingerprint: str | None = None
    queries: Literal["train", "validation"] | None = None
    made: Mapping[str, Json] = field(default_factory=dict)

    @property
    def ids(self) -> IntArray:
        """int64 [n], ascending."""
        return np.array(sorted(self.scores), dtype=np.int64)


def write_subset(path: Path, subset: Subset) -> None:
    """Writes a subset atomically. A score that is not finite is written as null, and fields that are None are left out.
    Raises StoreError if `path` cannot be written.
    """
    scores = {str(one): s if s is not None and math.isfinite(s) else None for one, s in subset.scores.items()}
    head = {
        "schema": SCHEMA,
        "version": VERSION,
        "dataset": subset.dataset,
        "task": subset.task,
        "fingerprint": subset.fingerprint,
        "queries": subset.queries,
        "made": dict(subset.made),
    }
    write_json(path, {**{key: value for key, value in head.items() if value is not None}, "subset": scores})


def read_subset(path: Path) -> Subset:
    """The subset in a file.

    Raises StoreError that names the file and the fault: it is missing, unreadable or of another schema or version, has no
    ids, repeats one, or has an id that is not a 64-bit integer.
    """
    try:
        data = read_whole(path)
    except FileNotFoundError as error:
        raise StoreError(f"subset {path} does not exist", _AGAIN) from error
    except OSError as error:
        raise StoreError(f"subset {path} cannot be read: {error.strerror or error}", "check the path") from error
    subset = _parsed(path, data) if data.lstrip().startswith(b"{") else Subset(_listed(path, data))
    if not subset.scores:
        raise StoreError(f"subset {path} has no ids", _AGAIN)
    return subset


class _File(BaseModel):
    """The JSON file."""

    kind: Literal["icltool.subset"] = Field(alias="schema")
    version: Literal[1]
    dataset: str | None = None
    task: str | None = None
    fingerprint: str | None = None
    queries: Literal["train", "validation"] | None = None
    made: dict[str, JsonValue] = {}
    subset: dict[_Id, float | None]


def _parsed(path: Path, data: bytes) -> Subset:
    try:
        file = _File.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"subset {path} is malformed: {f'{place}: ' if place else ''}{first['msg']}", _AGAIN
        ) from error
    return Subset(file.subset, file.dataset, file.task, file.fingerprint, file.queries, file.made)


def _listed(path: Path, data: bytes) -> dict[int, float | None]:
    """The ids of a plain list, without scores."""
    scores: dict[int, float | None] = {}
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), 1):
        if not (text := line.strip()):
            continue
        try:
            one = int(text)
        except ValueError:
            one = 2**63
        if not -(2**63) <= one < 2**63:
            raise StoreError(f"subset {path}, line {number}: {text[:40]!r} is not an id", _AGAIN)
        if one in scores:
            raise StoreError(f"subset {path}, line {number}: example {one} is listed twice", _AGAIN)
        scores[one] = None
    return scores
