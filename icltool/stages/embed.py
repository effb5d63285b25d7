"""Embeds images and retrieval texts.

Reads: datasets/<name>/<task>/
Writes: embeddings/<name>-<task>-<split>-<encoder>.h5
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.config.embed import EmbedConfig
from icltool.contracts import Encoder, FloatArray, Progress, StageReport
from icltool.plugin.manager import component, load_registry

if TYPE_CHECKING:
    from pathlib import Path

    from icltool.store.records import PreparedDataset, Records

SPLITS = ("train", "validation")


def run(config: EmbedConfig, progress: Progress) -> StageReport:
    """Embeds both splits; a split that is complete is left as it is.

    Raises StoreError when no data set is prepared or an artefact of other options is in the way, DataError for an image
    that cannot be read.
    """
    from icltool.store.records import open_dataset
    from icltool.store.workspace import Workspace

    workspace = Workspace(config.workspace)
    name, task = workspace.choose_dataset(config.dataset, config.task)
    dataset = open_dataset(workspace.dataset_folder(name, task))
    options: dict[str, Any] = {"device": config.device}
    if config.encoder_path is not None:
        options["path"] = str(config.encoder_path)
    owner = load_registry().get("encoders", config.encoder)
    encoder: Encoder = component("encoders", config.encoder, **options)
    rows = []
    for split in SPLITS:
        path = workspace.embeddings_file(name, task, split, config.encoder)
        done = _embed_split(
            config, dataset, split, encoder, path, {owner.name: f"{owner.distribution} {owner.version}"}, progress
        )
        rows.append(
            {
                "split": split,
                "examples": len(dataset.split(split)),
                "embedded now": done,
                "dimension": encoder.dim,
                "file": path.name,
            }
        )
    return StageReport(f"Embeddings of {name} ({task}) by {config.encoder}", tuple(rows), workspace.embeddings)


def _embed_split(
    config: EmbedConfig,
    dataset: PreparedDataset,
    split: str,
    encoder: Encoder,
    path: Path,
    plugins: dict[str, str],
    progress: Progress,
) -> int:
    """Embeds what is missing of one split; how many rows that was."""
    from icltool.store.artefact import Provenance
    from icltool.store.embeddings import EmbeddingWriter

    records = dataset.split(split)
    images = records.images
    fields = ("image", "text") if any(images) else ("text",)
    identity = {**config.identity(), "dataset": dataset.name, "task": dataset.task, "split": split}
    provenance = Provenance(identity, dataset.fingerprint, plugins=plugins)
    with EmbeddingWriter(
        path,
        provenance,
        config.encoder,
        encoder.fingerprint(),
        encoder.dim,
        fields,
        len(records),
        dtype=config.precision,
        overwrite=config.overwrite,
    ) as writer:
        start = writer.done
        if start == len(records):
            progress.say(f"{split}: up to date ({start} rows)")
            return 0
        with progress.task(f"embedding {split}", len(records), "examples", done=start) as ticker:
            for low in range(start, len(records), config.batch_size):
                high = min(low + config.batch_size, len(records))
                writer.append(records.ids[low:high], _encode(encoder, records, images, low, high, fields))
                ticker.advance(high - low)
    return len(records) - start


def _encode(
    encoder: Encoder, records: Records, images: list[str], low: int, high: int, fields: tuple[str, ...]
) -> dict[str, FloatArray]:
    """Vectors of rows low … high; an image or text that several of them share is encoded once."""
    found: dict[str, FloatArray] = {}
    for field in fields:
        values = images[low:high] if field == "image" else list(records.texts[low:high])
        distinct = list(dict.fromkeys(values))
        encode = encoder.encode_images if field == "image" else encoder.encode_texts
        position = {value: i for i, value in enumerate(distinct)}
        found[field] = encode(distinct)[np.array([position[v] for v in values])]
    return found
