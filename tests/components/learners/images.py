"""Training sets over images of the embedded world, with the CLIP that embedded them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet, TrainableEncoder, TrainingSet
from icltool.plugin.manager import component
from icltool.store.arrays import index_set, open_embeddings, query_set
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

#: A selector that a few seconds train; 64 is tiny-clip's width.
SMALL: dict[str, Any] = {
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 1,
    "batch_size": 16,
    "adapter": False,
    "norm": True,
    "trainer": {"accelerator": "cpu"},
}
ALL = ("image", "text", "images", "texts")


def tiny_clip(**options: Any) -> TrainableEncoder:
    encoder: TrainableEncoder = component("encoders", "tiny-clip", device="cpu", **options)
    return encoder


def arrays(
    workspace: Path, needs: Iterable[str] = ALL, task: str = "vqa", count: int = 40
) -> tuple[IndexSet, QuerySet]:
    """`count` rows of a world's index split, and 6 validation queries."""
    place = Workspace(workspace)
    dataset = open_dataset(place.dataset_folder("shapes", task))
    rows = np.arange(count, dtype=np.int64)
    files = [open_embeddings(place, dataset, split, "tiny-clip") for split in ("train", "validation")]
    return (
        index_set(dataset.split("train"), needs, files[0], rows),
        query_set(dataset.split("validation"), needs, files[1], rows[:6]),
    )


def training_set(
    index: IndexSet, encoder: TrainableEncoder | None = None, shots: int = 2, beams: int = 2
) -> TrainingSet:
    """Random sequences of 1 to `shots` demonstrations out of pools of eight, `beams` for each of the index's rows."""
    rng = np.random.default_rng(0)
    queries = np.repeat(np.arange(len(index)), beams)
    pools = np.array([rng.permutation(np.delete(np.arange(len(index)), q))[:8] for q in queries])
    icds: IntArray = pools[:, :shots].copy()
    if shots > 1:
        icds[::5, -1] = -1
    provenance = {"encoder": "tiny-clip", "dataset": "shapes"}
    return TrainingSet(index, queries, icds, rng.uniform(0.1, 1, len(queries)), provenance, pools, encoder)
