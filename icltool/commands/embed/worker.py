"""Workers of `icltool embed`: each holds an encoder and encodes blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.embed.options import EmbedConfig
from icltool.contracts import Encoder, FloatArray, IntArray
from icltool.plugin.manager import component
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.records import Records


@dataclass(frozen=True)
class Rows:
    """A unit of work: rows `low` to `high` - 1 of a split."""

    split: str
    low: int
    high: int


@dataclass(frozen=True)
class EncodedRows:
    """The embeddings of `rows`: `ids` int64 [n], `features` float32 [n, D] by field; the encoder's D and the fingerprint of its
    weights."""

    rows: Rows
    ids: IntArray
    features: dict[str, FloatArray]
    dim: int
    fingerprint: str


class Encoding:
    """A worker with its encoder."""

    def __init__(self, config: EmbedConfig, name: str, task: str) -> None:
        self._dataset = open_dataset(Workspace(config.workspace).dataset_folder(name, task))
        options: dict[str, object] = {"device": config.device}
        if config.encoder_path is not None:
            options["path"] = str(config.encoder_path)
        self._encoder: Encoder = component("encoders", config.encoder, **options)
        self._fingerprint = self._encoder.fingerprint()
        self._batch_size = config.batch_size

    def __call__(self, rows: Rows) -> EncodedRows:
        """The embeddings of the rows; an image or text that occurs more than once in a batch is encoded once."""
        records = self._dataset.split(rows.split)
        fields, size = embedded_fields(records), self._batch_size
        ids: list[int] = []
        parts: dict[str, list[FloatArray]] = {name: [] for name in fields}
        for low in range(rows.low - rows.low % size, rows.high, size):  # the same batches wherever a run began
            examples = records.rows(range(max(low, rows.low), min(low + size, rows.high)))
            ids += [e.id for e in examples]
            for name in fields:
                parts[name].append(self._encoded(name, [e.image if name == "image" else e.text for e in examples]))
        features = {name: np.concatenate(batches) for name, batches in parts.items()}
        return EncodedRows(rows, np.array(ids, dtype=np.int64), features, self._encoder.dim, self._fingerprint)

    def _encoded(self, name: str, values: Sequence[str]) -> FloatArray:
        distinct = list(dict.fromkeys(values))
        encode = self._encoder.encode_images if name == "image" else self._encoder.encode_texts
        position = {value: i for i, value in enumerate(distinct)}
        features: FloatArray = encode(distinct)[np.array([position[v] for v in values])]
        return features


def embedded_fields(records: Records) -> tuple[str, ...]:
    """The fields of a split that are embedded."""
    return ("image", "text") if records.has_images else ("text",)
