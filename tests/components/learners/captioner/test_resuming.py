"""Interrupted trainings go on where they were, and give the same files, byte for byte."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from icltool.components.learners.fitting.runner import RESUME, CheckpointCallback
from icltool.contracts import Example
from icltool.errors import StoreError
from tests.commands.train.forked import FORKED, both_ranks, ended, started
from tests.components.learners.captioner.runs import Ending, train
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set
from tests.suites import apart

FILES = ("best.safetensors", "last.safetensors", "README.md")
#: 14 examples with 35 captions: 9 batches, 5 steps an epoch with `accumulate` 2.
STEPS: dict[str, Any] = {"epochs": 3, "save_every": 2, "accumulate": 2, "select": "overlap", "label_smoothing": 0.1}


def same_weights(one: Path, other: Path) -> None:
    """Header and numbers, bit for bit; a safetensors header has its entries in any order."""
    headers, tensors = [], []
    for file in (one, other):
        with safe_open(file, framework="pt") as opened:
            headers.append(opened.metadata())
        tensors.append(load_file(file))
    assert headers[0] == headers[1]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        assert torch.equal(tensor, tensors[1][name]), name


def same_files(one: Path, other: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        same_weights(one / name, other / name)
    assert (one / "README.md").read_text() == (other / "README.md").read_text()
    assert sorted(p.name for p in other.iterdir()) == sorted(["logs", *FILES])


def without_speeds(history: Any) -> list[dict[str, float]]:
    return [{k: v for k, v in record.items() if not k.startswith("images_")} for record in history]


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "itm": {"itm": True, "schedule": "polynomial", "warmup": 0.3, "validate_every": 2},
    "scst": {"scst": True, "scst_metric": "overlap", "reward_workers": 0, "epochs": 5, "save_every": 1},
    "workers": {"workers": 2, "schedule": "blip2", "warmup_steps": 5, "freeze": "vision"},
}


@pytest.mark.parametrize("kind", apart("reliability", [kind for kind in KINDS if kind != "plain"], KINDS))
def test_an_interrupted_training_gives_the_same_files(examples: list[Example], tmp_path: Path, kind: str) -> None:
    options = {**STEPS, **KINDS[kind]}
    whole = fine_tuned(fine_tuning_set(examples), tmp_path / "whole", **options)
    recorders = []
    for after in (7, 4, 3):  # within an epoch, and over its end
        progress = Ending(after)
        with pytest.raises(KeyboardInterrupt):
            fine_tuned(fine_tuning_set(examples), tmp_path / "cut", progress, **options)
        recorders.append(progress)
    assert [one.tasks[0][1] for one in recorders] != [recorders[0].tasks[0][1]] * 3
    outcome = fine_tuned(fine_tuning_set(examples), tmp_path / "cut", **options)
    same_files(tmp_path / "whole", tmp_path / "cut")
    assert without_speeds(outcome.history) == without_speeds(whole.history)


@pytest.mark.parametrize("number", apart("reliability", [signal.SIGINT], [signal.SIGINT, signal.SIGTERM]))
def test_a_signal_saves_the_step_and_ends(examples: list[Example], tmp_path: Path, number: int) -> None:
    options = {**STEPS, "save_every": 0}
    fine_tuned(fine_tuning_set(examples), tmp_path / "whole", **options)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(fine_tuning_set(examples), tmp_path / "cut", Ending(11, number), **options)
    assert signal.getsignal(number) == before
    progress = Ending(10**6)
    fine_tuned(fine_tuning_set(examples), tmp_path / "cut", progress, **options)
    assert progress.tasks[0][1] == 27 - 13  # the step after the eleventh batch was finished
    same_files(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("epoch", apart("reliability", [3], [1, 3]))
def test_an_interrupted_validation_is_made_again_and_its_epoch_is_not(
    examples: list[Example], tmp_path: Path, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tuned(fine_tuning_set(examples), tmp_path / "whole", **STEPS)
    close = CheckpointCallback._close_epoch

    def closing(self: Any, trainer: Any, module: Any, record: dict[str, float]) -> None:
        if record["epoch"] == epoch:
            raise KeyboardInterrupt
        close(self, trainer, module, record)

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointCallback, "_close_epoch", closing)
        with pytest.raises(KeyboardInterrupt):
            fine_tuned(fine_tuning_set(examples), tmp_path / "cut", **STEPS)
    progress = Ending(10**6)
    outcome = fine_tuned(fine_tuning_set(examples), tmp_path / "cut", progress, **STEPS)
    assert sum(left for _, left in progress.tasks) == 9 * (3 - epoch)
    assert [record["epoch"] for record in outcome.history] == [1, 2, 3]
    same_files(tmp_path / "whole", tmp_path / "cut")


def test_patience_goes_on_too(examples: list[Example], tmp_path: Path) -> None:
    options = {**STEPS, "lr": 1e-12, "select": "loss", "patience": 2, "epochs": 9, "freeze": "vision"}
    options["warmup_lr"] = 0.0
    whole = fine_tuned(fine_tuning_set(examples), tmp_path / "whole", **options)
    assert len(whole.history) < 9
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(fine_tuning_set(examples), tmp_path / "cut", Ending(9 * (len(whole.history) - 1) + 2), **options)
    again = fine_tuned(fine_tuning_set(examples), tmp_path / "cut", **options)
    assert without_speeds(again.history) == without_speeds(whole.history)
    same_files(tmp_path / "whole", tmp_path / "cut")


def test_a_state_that_is_damaged_or_of_another_training_is_told(examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(fine_tuning_set(examples), tmp_path, Ending(5), **STEPS)
    with pytest.raises(StoreError, match="to a training with other options"):
        fine_tuned(fine_tuning_set(examples), tmp_path, **{**STEPS, "lr": 2e-2})
    saved = tmp_path / RESUME
    saved.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    with pytest.raises(StoreError, match="it is damaged"):
        fine_tuned(fine_tuning_set(examples), tmp_path, **STEPS)


def test_a_state_of_another_number_of_processes_is_told(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options are the same, and the machine has other devices than before."""
    from lightning.pytorch.accelerators import CPUAccelerator

    options = {**STEPS, "trainer": {"accelerator": "cpu", "devices": "auto", "strategy": "auto"}}
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(fine_tuning_set(examples), tmp_path, Ending(5), **options)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 2))
    with pytest.raises(StoreError, match="was saved by a training with 1 process, but this one has 2") as caught:
        fine_tuned(fine_tuning_set(examples), tmp_path, **options)
    assert "resume with 1 process," in str(caught.value.hint)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.reliability
@FORKED
def test_killed_at_random_moments(examples: list[Example], tmp_path: Path) -> None:
    options = {**STEPS, "epochs": 4, "save_every": 1, "itm": True}
    fine_tuned(fine_tuning_set(examples), tmp_path / "whole", **options)
    out, rng, kills = tmp_path / "killed", random.Random(1), 0
    while (code := ended(started(train, out, examples, options, rng.uniform(0.001, 0.05) if kills < 4 else 0.0))) != 0:
        assert code == -signal.SIGPROF
        kills += 1
    assert kills >= 3
    same_files(tmp_path / "whole", out)


@pytest.mark.reliability
@FORKED
def test_two_processes_train_as_one_model(examples: list[Example], tmp_path: Path) -> None:
    options = {**STEPS, "save_every": 1, "trainer": {"devices": 2}, "freeze": "vision", "itm": True}
    for name in ("one", "other"):
        assert both_ranks(train, tmp_path / name, examples, options) == [0, 0]
    same_files(tmp_path / "one", tmp_path / "other")
