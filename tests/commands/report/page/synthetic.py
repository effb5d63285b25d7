"""An evaluation of any size as the real writers leave it: photo-like images, a prepared data set, predictions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icltool.contracts import Example, PreparedSplit
from icltool.execution.progress import SilentProgress
from icltool.store.evaluations import MetricResult, SettingResult, predictions_file, write_predictions, write_results
from icltool.store.records import write_dataset
from icltool.store.workspace import Workspace

WORDS = (
    "a",
    "man",
    "dog",
    "red",
    "on",
    "the",
    "small",
    "street",
    "two",
    "large",
    "trees",
    "and",
    "water",
    "near",
    "bus",
)


def photo(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    """Coloured noise whose spectrum falls as that of photographs (amplitude about 1/f), with grain."""
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequencies[0, 0] = 1.0
    channels = []
    common = rng.normal(size=(height, width))
    for _ in range(3):
        spectrum = np.fft.rfft2(common + 0.4 * rng.normal(size=(height, width))) / frequencies
        spectrum[0, 0] = 0
        plane = np.fft.irfft2(spectrum, (height, width))
        channels.append(127 + 55 * plane / plane.std() + 3 * rng.normal(size=plane.shape))
    return Image.fromarray(np.stack(channels, -1).clip(0, 255).astype(np.uint8))


def photos(folder: Path, count: int, different: int = 40, size: tuple[int, int] = (640, 480)) -> list[Path]:
    """`count` JPEG files; from `different` on they are hard links to earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if number < different:
            photo(number, *size).save(path, quality=92)
        else:
            os.link(paths[number % different], path)
    return paths


def sentence(rng: np.random.Generator, words: int = 9) -> str:
    return " ".join(rng.choice(WORDS, words))


def big_evaluation(root: Path, queries: int, methods: int, shots: int, different: int = 40) -> Path:
    """A workspace in `root` with one evaluation in which no demonstration is shown twice; its evaluation folder."""
    rng = np.random.default_rng(0)
    count = queries * methods * shots
    paths = photos(root / "photos", queries + count, different)
    every = [
        Example(number, str(path), number, (text := sentence(rng)), text, (text, sentence(rng)))
        for number, path in enumerate(paths)
    ]
    workspace = Workspace(root / "ws")
    folder = workspace.dataset_folder("photos", "caption")
    splits = [
        PreparedSplit("validation", queries, iter(every[:queries])),
        PreparedSplit("train", count, iter(every[queries:])),
    ]
    dataset = write_dataset(folder, "photos", "caption", "caption", splits, {}, SilentProgress())
    target = workspace.evaluation_folder("photos", "caption", "tiny-idefics", "0badcafe")
    results = []
    for number in range(methods):
        rows = list(_rows(every, queries, number, shots, rng))
        write_predictions(predictions_file(target, f"method-{number}", shots, 0), rows)
        results.append(_result(f"method-{number}", shots, [row["scores"]["cider"] for row in rows]))
    configuration = {
        "dataset": "photos",
        "task": "caption",
        "model": "tiny-idefics",
        "dataset_fingerprint": dataset.fingerprint,
    }
    write_results(target, results, {"configuration": configuration}, {})
    return target


def _rows(
    every: list[Example], queries: int, method: int, shots: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    for number in range(queries):
        first = queries + (method * queries + number) * shots
        demonstrations = every[first : first + shots]
        blocks = [f"<image>Caption:{one.label}<|endofchunk|>" for one in demonstrations]
        answer = sentence(rng)
        yield {
            "query_id": number,
            "group": "",
            "icd_ids": [one.id for one in demonstrations],
            "prompt": "".join(blocks) + "<image>Caption:",
            "images": [one.image for one in (*demonstrations, every[number])],
            "raw": answer,
            "answer": answer,
            "references": list(every[number].references),
            "scores": {"cider": float(rng.gamma(2.0, 50.0))},
            "shared": {},
            "copied": [],
        }


def _result(method: str, shots: int, scores: list[float]) -> SettingResult:
    mean = float(np.mean(scores))
    return SettingResult(method, shots, 0, len(scores), {"cider": MetricResult(mean, mean - 5, mean + 5)}, 1.0)
