"""Workers of `icltool embed`: each holds an encoder and encodes blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.embed.options import EmbedConfig
from icltool.contracts import Encoder, Example, FloatArray, IntArray
from icltool.contracts.encoder import modalities_of
from icltool.errors import ConfigError
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset, Records


#: Texts of an example that are neither its retrieval text nor part of its answer.
OWN_TEXTS = ("question", "style")


@dataclass(frozen=True)
class Rows:
    """A unit of work: rows `low` to `high` - 1 of a split."""

    split: str
    low: int
    high: int


@dataclass(frozen=True)
class EncodedRows:
    """The embeddings of `rows`: `ids` int64 [n], `features` float32 [n, D] by field that the encoder encodes; its D and the
    fingerprint of its weights."""

    rows: Rows
    ids: IntArray
    features: dict[str, FloatArray]
    dim: int
    fingerprint: str


class Encoding:
    """A worker with its encoder."""

    def __init__(self, config: EmbedConfig, name: str, task: str) -> None:
        self._dataset = open_dataset(Workspace(config.workspace).dataset_folder(name, task))
        self._encoder: Encoder = config.chosen_encoder().build(device=config.device)
        self._fingerprint = self._encoder.fingerprint()
        self._batch_size, self._pooling, self._field = config.batch_size, config.image_pooling, config.text_field

    def __call__(self, rows: Rows) -> EncodedRows:
        """The embeddings of the rows; an image or text that occurs more than once in a batch is encoded once."""
        records = self._dataset.split(rows.split)
        fields, size = embedded_fields(records, self._encoder, self._dataset), self._batch_size
        ids: list[int] = []
        parts: dict[str, list[FloatArray]] = {name: [] for name in fields}
        for low in range(rows.low - rows.low % size, rows.high, size):  # the same batches wherever a run began
            examples = records.rows(range(max(low, rows.low), min(low + size, rows.high)))
            ids += [e.id for e in examples]
            for name in fields:
                parts[name].append(
                    self._pooled(examples)
                    if name == "image"
                    else self._encoded([text_of(e, self._field) for e in examples])
                )
        features = {name: np.concatenate(batches) for name, batches in parts.items()}
        return EncodedRows(rows, np.array(ids, dtype=np.int64), features, self._encoder.dim, self._fingerprint)

    def _encoded(self, texts: Sequence[str]) -> FloatArray:
        distinct = list(dict.fromkeys(texts))
        position = {value: i for i, value in enumerate(distinct)}
        features: FloatArray = self._encoder.encode_texts(distinct)[np.array([position[text] for text in texts])]
        return features

    def _pooled(self, examples: Sequence[Example]) -> FloatArray:
        """One image embedding per example, float32 [n, D]: that of its only image; of several, the normalised mean of their
        normalised embeddings, or the first one; zeros without an image."""
        images = [example.images if self._pooling == "mean" else example.images[:1] for example in examples]
        distinct = list(dict.fromkeys(image for own in images for image in own))
        if not distinct:
            return np.zeros((len(examples), self._encoder.dim), dtype=np.float32)
        features = self._encoder.encode_images(distinct)
        position = {image: i for i, image in enumerate(distinct)}
        pooled = np.zeros((len(examples), features.shape[1]), dtype=np.float32)
        for row, own in zip(pooled, images, strict=True):
            if own:
                vectors = features[[position[image] for image in own]]
                row[:] = vectors[0] if len(own) == 1 else _normalised(_normalised(vectors).mean(axis=0))
        return pooled


def _normalised(vectors: FloatArray) -> FloatArray:
    """L2-normalised over the last axis; zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: FloatArray = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return scaled


def text_of(example: Example, field: str | None) -> str:
    """The text of an example that is encoded: its retrieval text, or its `field`, "" if it has none."""
    if field is None:
        return example.text
    own = {name: getattr(example, name) for name in OWN_TEXTS}
    return str(own.get(field, example.fields.get(field, "")))


def check_field(records: Records, field: str | None) -> None:
    """Raises ConfigError for a field that none of a split's first examples has."""
    if field is None:
        return
    examples = records.rows(range(min(len(records), 100)))
    if examples and not any(text_of(example, field) for example in examples):
        names = {name for example in examples for name in (*OWN_TEXTS, *example.fields) if text_of(example, name)}
        known = f"its texts: {', '.join(sorted(names))}" if names else "leave --text-field out"
        raise ConfigError(f"the examples have no text in the field {field!r}", known)


def embedded_fields(records: Records, encoder: Encoder, dataset: PreparedDataset) -> tuple[str, ...]:
    """The fields of a split that are embedded. ConfigError if the encoder has no use for any of them."""
    there = ("image", "text") if records.has_images else ("text",)
    fields = tuple(field for field in there if field in modalities_of(encoder))
    if not fields:
        raise ConfigError(
            f"encoder {encoder.name!r} encodes images only, and {dataset.name} ({dataset.task}) has none",
            "choose an encoder of texts, such as minilm",
        )
    return fields
