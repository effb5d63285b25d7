"""Data sets in the formats of Hugging Face `datasets`, with the images inside."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

IMAGE = {"image": datasets.Image()}
TEXT = datasets.Value("string")


def image(shade: int, kind: str = "PNG") -> dict[str, Any]:
    """An encoded image as the Image feature holds it."""
    noise = np.random.default_rng(shade).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, kind)
    return {"bytes": content.getvalue(), "path": f"{shade}.{kind.lower()}"}


def as_dataset(rows: Sequence[Mapping[str, Any]], features: Mapping[str, Any]) -> datasets.Dataset:
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def write_parquet(
    folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], features: Mapping[str, Any], shards: int = 1
) -> Path:
    """`folder`/data/SPLIT-00000-of-0000N.parquet, as the hub has them."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        whole = as_dataset(rows, features)
        for i in range(shards):
            part = whole.shard(shards, i, contiguous=True)
            part.to_parquet(str(folder / "data" / f"{split}-{i:05d}-of-{shards:05d}.parquet"))
    return folder
