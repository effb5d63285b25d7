"""What stored embeddings save: epochs a minute with them, and with CLIP run on every step, frozen or trained.

OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_clip_training.py -s
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.contracts import IndexSet, TrainableEncoder
from icltool.plugin.manager import component
from tests.components.learners.images import SMALL, arrays, tiny_clip, training_set
from tests.components.learners.synthetic import RecordingProgress

pytestmark = pytest.mark.benchmark

#: Of the world's CLIP, and of the large one.
EXAMPLES, EPOCHS, LARGE, LARGE_EXAMPLES = 96, 4, "vit-b-32", 24

WAYS: dict[str, dict[str, Any]] = {
    "stored embeddings": {},
    "frozen CLIP on every step": {"from_images": True},
    "trained CLIP": {"freeze": "none"},
}


class Clock(RecordingProgress):
    """Notes when each step was done."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        self.times.append(time.perf_counter())

    def steps_per_minute(self) -> float:
        """From the end of the first step to the end of the last, validations between them included."""
        return 60 * (len(self.times) - 1) / (self.times[-1] - self.times[0])


def compare(
    index: IndexSet, encoder: TrainableEncoder, folder: Path, beams: int, **options: Any
) -> dict[str, tuple[float, list[dict[str, float]]]]:
    """By way: epochs per minute, and the history."""
    results = {}
    state = {m: {n: t.clone() for n, t in encoder.tower(m).state_dict().items()} for m in ("image", "text")}
    for name, way in WAYS.items():
        for modality, weights in state.items():
            encoder.tower(modality).load_state_dict(weights)
        clock, learner = Clock(), LeverLM(LeverLMOptions(**{**SMALL, **options, **way}))
        data = training_set(index, encoder if "encoder" in learner.needs else None, beams=beams)
        outcome = learner.train(data, folder / name, 0, clock)
        epochs = float(outcome.history[-1]["epoch"])
        results[name] = (clock.steps_per_minute() * epochs / len(clock.times), list(outcome.history))
    return results


def show(
    title: str, results: dict[str, tuple[float, list[dict[str, float]]]], capsys: pytest.CaptureFixture[str]
) -> None:
    stored = results["stored embeddings"][0]
    with capsys.disabled():
        print(f"\n{title}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
        for name, (rate, history) in results.items():
            loss = history[-1]["val_loss"]
            print(f"  {name}: {rate:.4g} epochs per minute, 1/{stored / rate:.4g}; validation loss {loss:.6f}")


def check_losses(results: dict[str, tuple[float, list[dict[str, float]]]]) -> None:
    """The frozen towers' losses are those of the stored embeddings; the trained ones' are others."""
    stored, online, trained = (results[name][1] for name in WAYS)
    for one, other in zip(stored, online, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5)
        assert other["val_loss"] == pytest.approx(one["val_loss"], abs=1e-5)
    assert trained[-1]["val_loss"] != stored[-1]["val_loss"]


def test_the_worlds_clip(small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    index, _ = arrays(small_world, task="caption", count=EXAMPLES)
    comparison = compare(index, tiny_clip(), tmp_path, 4, epochs=EPOCHS, batch_size=32)
    show(f"tiny-clip (0.3 M parameters, 32 x 32 pixels), {EXAMPLES} examples, {4 * EXAMPLES} rows", comparison, capsys)
    check_losses(comparison)


def test_vit_b_32(small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Untrained weights: speed does not depend on them, and the losses agree all the same."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = component("encoders", LARGE, device="cpu", **({} if LARGE == "tiny-clip" else {"weights": False}))
    index, _ = arrays(small_world, ("images", "texts"), task="caption", count=LARGE_EXAMPLES)
    images = []
    for place, path in enumerate(index.images):
        images.append(str(tmp_path / f"{place}.jpg"))
        with Image.open(path) as original:
            original.resize((224, 224)).save(images[-1], quality=95)
    image = np.concatenate([encoder.encode_images(images[k : k + 8]) for k in range(0, LARGE_EXAMPLES, 8)])
    text = encoder.encode_texts(index.texts)
    index = dataclasses.replace(index, images=tuple(images), image=image, text=text, _lookup={})
    options = {"n_embd": 512, "n_head": 8, "n_layer": 2, "epochs": 1, "batch_size": 16, "val_fraction": 0.2}
    comparison = compare(index, encoder, tmp_path, 2, **options)
    show(f"ViT-B/32 (151 M parameters, 224 x 224 pixels), {LARGE_EXAMPLES} examples, two rows each", comparison, capsys)
    check_losses(comparison)
