"""A SteeringSet of examples in memory, and what its tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icltool.contracts import Example, IndexSet, IntArray, SteeringSet, group_code, task_named


class InMemory:
    """Examples as records give them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def rows(self, rows: IntArray | Sequence[int]) -> list[Example]:
        return [self.examples[int(row)] for row in rows]


def index_of(examples: Sequence[Example]) -> IndexSet:
    return IndexSet(
        np.array([e.id for e in examples], dtype=np.int64),
        np.array([e.image_id for e in examples], dtype=np.int64),
        np.array([group_code(e.group) for e in examples], dtype=np.int64),
    )


def steering_set(model: Any, examples: Sequence[Example], task: str = "caption", cached: bool = True) -> SteeringSet:
    """The examples with the model's features of their images, each encoded once (not with `cached` false)."""
    known: dict[str, Any] = {}

    def features(paths: Sequence[str]) -> Mapping[str, Any] | None:
        if not cached:
            return None
        missing = [p for p in dict.fromkeys(paths) if p not in known]
        known.update(zip(missing, model.image_features(missing, 8), strict=True) if missing else ())
        return {path: known[path] for path in paths}

    provenance = {"dataset": "scenery", "dataset_fingerprint": "f00d", "icltool": "test"}
    return SteeringSet(
        model, task_named(task), InMemory(examples), index_of(examples), features, batch_size=4, provenance=provenance
    )
