"""Embeds images and retrieval texts.

Reads: datasets/<name>/<task>/
Writes: embeddings/<name>-<task>-<split>-<encoder>.h5
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.config.embed import EmbedConfig
from icltool.contracts import Encoder, FloatArray, Progress, StageReport
from icltool.plugin.manager import component, load_registry

if TYPE_CHECKING:
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
    owner = load_registry().get("encoders", config.encoder)
    plugins = {f"encoders/{owner.name}": f"{owner.distribution} {owner.version}"}
    jobs = [
        _Job(dataset, split, workspace.embeddings_file(name, task, split, config.encoder), plugins) for split in SPLITS
    ]
    waiting = [job for job in jobs if config.overwrite or not job.is_complete(config)]
    embedded = dict.fromkeys(SPLITS, 0)
    if waiting:
        options: dict[str, Any] = {"device": config.device}
        if config.encoder_path is not None:
            options["path"] = str(config.encoder_path)
        encoder: Encoder = component("encoders", config.encoder, **options)
        for job in waiting:
            embedded[job.split] = _embed(config, job, encoder, progress)
    rows = [
        {
            "split": job.split,
            "examples": len(dataset.split(job.split)),
            "embedded now": embedded[job.split],
            "file": job.path.name,
        }
        for job in jobs
    ]
    remarks = () if waiting else ("up to date: everything was embedded before",)
    return StageReport(f"Embeddings of {name} ({task}) by {config.encoder}", tuple(rows), workspace.embeddings, remarks)


@dataclass(frozen=True)
class _Job:
    """One split and the file its embeddings go to."""

    dataset: PreparedDataset
    split: str
    path: Path
    plugins: dict[str, str]

    def identity(self, config: EmbedConfig) -> dict[str, Any]:
        return {**config.identity(), "dataset": self.dataset.name, "task": self.dataset.task, "split": self.split}

    def is_complete(self, config: EmbedConfig) -> bool:
        """Whether the file holds all rows of this very data set, made with these options by this version."""
        from icltool.store.embeddings import EmbeddingFile

        if not self.path.is_file():
            return False
        file = EmbeddingFile.open(self.path)
        made = (file.provenance.configuration, file.provenance.dataset_fingerprint, file.provenance.plugins)
        return file.complete and made == (self.identity(config), self.dataset.fingerprint, self.plugins)


def _embed(config: EmbedConfig, job: _Job, encoder: Encoder, progress: Progress) -> int:
    """Embeds what is missing of one split; how many rows that was."""
    from icltool.store.artefact import Provenance
    from icltool.store.embeddings import EmbeddingWriter

    records = job.dataset.split(job.split)
    images = records.images
    fields = ("image", "text") if any(images) else ("text",)
    provenance = Provenance(job.identity(config), job.dataset.fingerprint, plugins=job.plugins)
    with EmbeddingWriter(
        job.path,
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
        with progress.task(f"embedding {job.split}", len(records), "examples", done=start) as ticker:
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
