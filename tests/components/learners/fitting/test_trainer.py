"""Trainings that torchrun starts: all its processes take part in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.cli.app import run
from icltool.components.learners.fitting.trainer import check_half_precision, from_launcher, make_trainer
from icltool.errors import ConfigError
from icltool.execution.processes import launched
from icltool.store.atomic import read_json


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Any:
    def started(world: int, here: int | None = None) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setenv("WORLD_SIZE", str(world))
        if here is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))

    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return started


def test_devices_are_those_of_the_launcher(torchrun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == (1, 1)
    assert from_launcher() == {}
    monkeypatch.setenv("WORLD_SIZE", "4")  # of a launcher that Lightning does not know
    assert from_launcher() == {}
    torchrun(4)
    assert from_launcher() == {"devices": 4, "num_nodes": 1, "strategy": "ddp"}
    torchrun(8, 4)
    assert from_launcher() == {"devices": 4, "num_nodes": 2, "strategy": "ddp"}
    torchrun(1, 1)
    assert from_launcher() == {}


def test_another_number_of_devices_is_refused(torchrun: Any, tmp_path: Path) -> None:
    torchrun(2)
    with pytest.raises(ConfigError, match="torchrun started 2 processes, but --trainer asks for 1"):
        make_trainer({"accelerator": "cpu", "devices": 1}, tmp_path, [], [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_for_gpus(dtype: torch.dtype) -> None:
    check_half_precision([torch.zeros(1, dtype=dtype)], torch.device("cpu"))
    check_half_precision([torch.zeros(1, dtype=torch.float16)], torch.device("cuda"))
    with pytest.raises(ConfigError, match="can only be trained on a GPU"):
        check_half_precision([torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=torch.float16)], torch.device("cpu"))


@pytest.mark.external
def test_two_processes_take_half_the_steps_and_one_evaluates(small_world: Path, tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "datasets").symlink_to(small_world / "datasets")
    common = ["--task=vqa", "--model=tiny-idefics", "--device=cpu", f"--workspace={tmp_path / 'ws'}"]
    options = ["max_train_size=16", "shots=1", "epochs=1", "batch_size=2", "accumulate=1"]
    train = ["train", "live", *(f"--option={option}" for option in options), *common]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "icltool"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *train, "--seed=1"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert run([*train, "--seed=2", "--quiet"]) == 0
    steps = {}
    for file in (tmp_path / "ws" / "checkpoints").glob("*/training.json"):
        record = read_json(file)
        steps[record["identity"]["seed"]] = record["history"][-1]["step"]
    assert steps == {1: 4, 2: 8}
    evaluate = ["evaluate", "--method=zero-shot", "--test-size=4", "--json", *common]
    done = subprocess.run([*launcher, *evaluate], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"rows"') == 1
