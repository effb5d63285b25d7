"""CLIP in the training loop: frozen towers give the stored embeddings' losses, trained ones learn."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from torch import nn

from icltool.components.learners.lever_lm.clip import BatchTable, OnlineClip, Opened, OpenedBatches
from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.rows import EvenBatches, RowDataset, Vocabulary, build_rows
from icltool.contracts.options import options_from
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from tests.components.learners.images import SMALL, arrays, tiny_clip, training_set
from tests.components.learners.synthetic import RecordingProgress


def train(folder: Path, workspace: Path, **options: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """(history, tensors of the last checkpoint) of a training on exactly what the learner needs."""
    learner = LeverLM(LeverLMOptions(**{**SMALL, "epochs": 1, **options}))
    index, _ = arrays(workspace, learner.needs, count=20)
    data = training_set(index, tiny_clip() if "encoder" in learner.needs else None)
    outcome = learner.train(data, folder, 0, RecordingProgress())
    return list(outcome.history), load_file(folder / "last.safetensors")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variant": "query_img_icd_text", "network": "lstm"},
        {"variant": "query_img_text_icd_img_text", "adapter": True, "norm": False},
        {"network": "pointer"},
    ],
)
def test_towers_that_run_on_every_step_give_the_losses_of_stored_embeddings(
    options: dict[str, Any], small_world: Path, tmp_path: Path
) -> None:
    stored, _ = train(tmp_path / "stored", small_world, **options)
    online, weights = train(tmp_path / "online", small_world, **options, from_images=True)
    assert len(stored) == len(online) == 2
    for one, other in zip(stored, online, strict=True):
        for figure in ("train_loss", "val_loss"):
            assert other[figure] == pytest.approx(one[figure], abs=1e-5)
    assert not [name for name in weights if name.startswith("clip.")]


def test_only_the_towers_that_are_not_frozen_learn(small_world: Path, tmp_path: Path) -> None:
    before = {m: tiny_clip().tower(m).state_dict() for m in ("image", "text")}
    for freeze, trained in (("none", {"image", "text"}), ("image", {"text"}), ("text", {"image"})):
        _, weights = train(tmp_path / freeze, small_world, freeze=freeze)
        towers = {name.split(".")[1] for name in weights if name.startswith("clip.")}
        assert towers == trained
        for modality in trained:
            own = {
                n.removeprefix(f"clip.{modality}."): t for n, t in weights.items() if n.startswith(f"clip.{modality}.")
            }
            assert own.keys() == before[modality].keys()
            moved = [name for name, value in own.items() if not torch.equal(value, before[modality][name])]
            assert len(moved) == len(own)
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    assert config["clip"]["encoder"] == "tiny-clip"
    assert config["clip"]["architecture"] == tiny_clip().architecture()
    assert "image tower was trained, too" in (tmp_path / "text" / "README.md").read_text()


def test_a_tower_that_the_variant_does_not_read_is_neither_run_nor_trained() -> None:
    learner = LeverLM(LeverLMOptions(freeze="", variant="query_text_icd_text"))
    assert learner.needs == {"texts", "encoder"}
    assert LeverLM(LeverLMOptions(freeze="image", variant="query_img_icd_img")).needs == {"image"}
    assert LeverLM(LeverLMOptions(freeze="text")).needs == {"images", "text", "encoder"}
    assert LeverLM(LeverLMOptions()).needs == {"image", "text"}


def test_training_both_towers_needs_no_embeddings(small_world: Path, tmp_path: Path) -> None:
    learner = LeverLM(LeverLMOptions(**SMALL, freeze="none", epochs=1))
    index, _ = arrays(small_world, learner.needs)
    assert index.image is None
    assert index.text is None
    learner.train(training_set(index, tiny_clip()), tmp_path, 0, RecordingProgress())


def test_the_seed_decides_everything(small_world: Path, tmp_path: Path) -> None:
    first, weights = train(tmp_path / "a", small_world, freeze="none", workers=1)
    second, again = train(tmp_path / "b", small_world, freeze="none", workers=3)
    assert first == second
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_towers_learn_at_their_own_rate(small_world: Path, tmp_path: Path) -> None:
    before = tiny_clip().tower("image").state_dict()
    gaps = []
    for rate in (None, 1e-3, 1e-6):
        _, weights = train(tmp_path / str(rate), small_world, freeze="text", lr=1e-3, encoder_lr=rate)
        gaps.append(max(float((weights[f"clip.image.{name}"] - value).abs().max()) for name, value in before.items()))
    assert gaps[0] == gaps[1]
    assert gaps[2] < 1e-2 * gaps[1]


def test_recomputing_activations_changes_nothing(small_world: Path, tmp_path: Path) -> None:
    plain, _ = train(tmp_path / "plain", small_world, freeze="none")
    again, _ = train(tmp_path / "again", small_world, freeze="none", grad_checkpointing="true")
    for one, other in zip(plain, again, strict=True):
        assert other["val_loss"] == pytest.approx(one["val_loss"], abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
@pytest.mark.parametrize("options", [{}, {"freeze": "none"}, {"freeze": "text", "network": "pointer"}])
def test_other_precisions_train_too(precision: str, options: dict[str, Any], small_world: Path, tmp_path: Path) -> None:
    single, _ = train(tmp_path / "single", small_world, **options)
    other, _ = train(tmp_path / "other", small_world, **options, precision=precision)
    assert other[-1]["val_loss"] == pytest.approx(
        single[-1]["val_loss"], rel=3e-2 if precision == "bf16-true" else 1e-5
    )


class NoCheckpointing(nn.Linear):
    pass


def test_a_tower_without_gradient_checkpointing_is_named() -> None:
    from icltool.components.learners.lever_lm.clip import build_clip

    encoder = tiny_clip()
    encoder.tower = lambda modality: NoCheckpointing(2, 2)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"tower of encoder 'tiny-clip' does not support gradient checkpointing"):
        build_clip(encoder, options_from("lever-lm", LeverLMOptions, {"freeze": "none", "grad_checkpointing": True}))


def test_frozen_towers_stay_in_evaluation_mode() -> None:
    clip = OnlineClip({"image": nn.Dropout().eval(), "text": nn.Dropout().eval()}, frozenset({"text"}))
    assert (clip.towers["image"].training, clip.towers["text"].training) == (False, True)
    clip.eval()
    assert not clip.towers["text"].training
    clip.train()
    assert (clip.towers["image"].training, clip.towers["text"].training) == (False, True)


class Impatient(RecordingProgress):
    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if self.done == 5:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_keeps_checkpoints_and_leaves_no_thread(small_world: Path, tmp_path: Path) -> None:
    learner = LeverLM(LeverLMOptions(**SMALL, freeze="none", epochs=9))
    index, _ = arrays(small_world, learner.needs)
    with pytest.raises(KeyboardInterrupt):
        learner.train(training_set(index, tiny_clip()), tmp_path, 0, Impatient())
    assert load_file(tmp_path / "last.safetensors")["clip.image.proj"].shape == (64, 64)
    assert not [t for t in threading.enumerate() if t.name.startswith("icltool-open")]


def test_an_image_that_cannot_be_read_is_named_in_one_line(small_world: Path, tmp_path: Path) -> None:
    learner = LeverLM(LeverLMOptions(**SMALL, freeze="none", epochs=1))
    index, _ = arrays(small_world, learner.needs)
    images = ("/nowhere/gone.png", *index.images[1:])
    data = training_set(dataclasses.replace(index, images=images, _lookup={}), tiny_clip())
    with pytest.raises(DataError, match=r"gone\.png") as caught:
        learner.train(data, tmp_path, 0, RecordingProgress())
    assert "\n" not in str(caught.value)
    empty = dataclasses.replace(index, images=("", *index.images[1:]), _lookup={})
    with pytest.raises(DataError, match="1 of 40 examples have no image"):
        learner.train(training_set(empty, tiny_clip()), tmp_path, 0, RecordingProgress())
    bare = dataclasses.replace(index, images=(), _lookup={})
    with pytest.raises(ValueError, match="images are missing"):
        learner.train(training_set(bare, tiny_clip()), tmp_path, 0, RecordingProgress())


def test_an_encoder_of_another_width_is_refused(small_world: Path, tmp_path: Path) -> None:
    index, _ = arrays(small_world)
    assert index.text is not None
    narrow = dataclasses.replace(index, text=index.text[:, :32].copy(), _lookup={})
    with pytest.raises(ConfigError, match=r"width 64, the embeddings have 32"):
        LeverLM(LeverLMOptions(**SMALL, freeze="text")).train(
            training_set(narrow, tiny_clip()), tmp_path, 0, RecordingProgress()
        )


def test_contrast_with_the_index_set_and_trained_clip_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="contrast=pool"):
        component("learners", "lever-lm", network="pointer", contrast="index", freeze="text")
    assert LeverLM(LeverLMOptions(network="pointer", contrast="index")).needs == {"image", "text"}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_batch_table_is_the_whole_table_for_the_batchs_rows(data: st.DataObject) -> None:
    examples = data.draw(st.integers(1, 30))
    codes = data.draw(st.lists(st.integers(0, 8), min_size=examples, max_size=examples))  # what rows share
    rows = sorted(data.draw(st.sets(st.integers(0, examples - 1), min_size=1)))
    distinct = list(dict.fromkeys(codes[row] for row in rows))
    places = torch.tensor([distinct.index(codes[row]) for row in rows])
    whole = torch.tensor(codes, dtype=torch.float32)[:, None] * torch.tensor([1.0, -2.0])
    features = torch.tensor(distinct, dtype=torch.float32)[:, None] * torch.tensor([1.0, -2.0])
    table = BatchTable(Opened(torch.tensor(rows), places, torch.empty(0)), features)
    batch = torch.tensor(data.draw(st.lists(st.sampled_from(rows), min_size=2, max_size=12))).reshape(-1, 1)
    assert torch.equal(table[batch], whole[batch])
    assert table[torch.tensor([examples + 5, 0])].shape == (2, 2)


class SlowToOpen:
    """Opens batches out of order: the first takes longest."""

    def __init__(self) -> None:
        self.opened = 0

    def start(self, batch: Any, pool: Any) -> Any:
        self.opened += 1
        return pool.submit(lambda: batch).result


def test_batches_come_in_the_loaders_order_a_few_opened_ahead() -> None:
    rows = build_rows(np.arange(20), np.arange(20)[:, None], Vocabulary(20), False)
    batches = EvenBatches(20, 2, shuffle=True, seed=3)
    loader = torch.utils.data.DataLoader(RowDataset(rows), sampler=batches, batch_size=None)
    opener = SlowToOpen()
    ahead = OpenedBatches(loader, opener, 2)  # type: ignore[arg-type]
    assert ahead.sampler is batches
    assert len(ahead) == len(loader) == 10
    assert [b.queries.tolist() for b in ahead] == [b.queries.tolist() for b in loader]  # type: ignore[attr-defined]
    opener.opened = 0
    for _ in ahead:
        break
    assert opener.opened == 3
    assert not [t for t in threading.enumerate() if t.name.startswith("icltool-open")]
