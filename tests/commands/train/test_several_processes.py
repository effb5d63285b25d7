"""Training in two processes, through the command line, beside one process with the same global batch.

Those of most tests are forked (see forked.py), as srun or torchrun start them; Lightning starts them itself from one command
where the mark `reliability` stands, and in test_intervention."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icltool.cli.app import run
from icltool.errors import ConfigError, DataError
from icltool.store.records import PreparedSplit, write_dataset
from icltool.store.workspace import Workspace
from tests.commands.train.forked import FORKED, RANKS, both_ranks, command_line, ended, ranks, started
from tests.commands.train.test_interventions import killed_in_the_second_epoch
from tests.commands.train.test_run import EXAMPLES, example, write_embeddings, write_sequences
from tests.components.learners.synthetic import RecordingProgress

pytestmark = FORKED

ONE = {"accelerator": "cpu", "log_every_n_steps": "1"}
TWO = {**ONE, "devices": "2", "strategy": "ddp"}
#: Relative difference of two curves: float32 sums in another order.
TOLERANCE = 1e-4


def command(workspace: Path, learner: str, options: dict[str, Any], trainer: dict[str, str]) -> list[str]:
    arguments = ["train", learner, "--workspace", str(workspace), "--task", "caption", "--device", "cpu"]
    model = {"live": "tiny-idefics", "captioner": "tiny-blip2"}.get(learner)
    arguments += ["--model", model] if model else []
    arguments += [text for pair in options.items() for text in ("--option", "{}={}".format(*pair))]
    return arguments + [text for pair in trainer.items() for text in ("--trainer", "{}={}".format(*pair))]


def environment() -> dict[str, str]:
    variables = {k: v for k, v in os.environ.items() if k not in RANKS}
    return {**variables, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def trained(workspace: Path, learner: str, options: dict[str, Any], trainer: dict[str, str]) -> Path:
    """The folder of a training by processes of its own."""
    logs = [workspace.with_name(f"{workspace.name}-{rank}.txt") for rank in (0, 1)]
    arguments = command(workspace, learner, options, trainer)
    if trainer is TWO:
        codes = both_ranks(command_line, arguments, outputs=(logs[0], logs[1]))
    else:
        codes = [ended(started(command_line, arguments, output=logs[0]))]
    texts = [file.read_text() for file in logs[: len(codes)]]
    assert codes == [0] * len(codes), texts
    assert "".join(texts).count("written:") == 1
    return folder_of(workspace)


def folder_of(workspace: Path) -> Path:
    (folder,) = [path for path in (workspace / "checkpoints").iterdir() if path.is_dir()]
    return folder


def curve(folder: Path, column: str) -> list[float]:
    """The loss of every step that was logged."""
    with (folder / "logs" / "metrics.csv").open() as opened:
        return [float(row[column]) for row in csv.DictReader(opened) if row.get(column)]


def history(folder: Path) -> list[dict[str, float]]:
    content: list[dict[str, float]] = json.loads((folder / "training.json").read_text())["history"]
    return [{key: value for key, value in record.items() if not key.startswith("images_")} for record in content]


def same(one: Path, two: Path, column: str) -> None:
    """The same curves and results."""
    curves = [curve(folder, column) for folder in (one, two)]
    for name, values in zip(("one process ", "two processes"), curves, strict=True):
        print(name, " ".join(f"{value:.6f}" for value in values))
    assert len(curves[0]) > 5
    assert curves[1] == pytest.approx(curves[0], rel=TOLERANCE)
    assert max(curves[0]) - min(curves[0]) > 100 * TOLERANCE, "a curve that is flat would always agree"
    same_result(one, two)


def same_result(one: Path, two: Path) -> None:
    """The same histories, weights and files."""
    first, second = history(one), history(two)
    assert len(first) == len(second) > 1
    for a, b in zip(first, second, strict=True):
        assert b == pytest.approx(a, rel=TOLERANCE, abs=1e-6)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, two)]
    assert names[0] == names[1]
    weights = [load_file(folder / "last.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    # a key's bias shifts all scores alike: its gradient is 0 but for rounding, and Adam makes steps of that
    tensor_names = [n for n, w in weights[0].items() if w.is_floating_point() and not n.endswith("k_proj.bias")]
    vectors = [torch.cat([tensors[name].float().flatten() for name in tensor_names]) for tensors in weights]
    assert float((vectors[0] - vectors[1]).norm() / vectors[0].norm()) < 1e-3


@pytest.fixture
def toy(tmp_path: Path) -> Workspace:
    """A prepared and embedded data set with finished sequences."""
    workspace = Workspace(tmp_path / "toy")
    splits = [PreparedSplit("train", EXAMPLES, iter([example(number) for number in range(EXAMPLES)]))]
    folder = workspace.dataset_folder("toy", "caption")
    dataset = write_dataset(folder, "toy", "caption", "caption", splits, {}, RecordingProgress())
    write_embeddings(workspace, dataset)
    write_sequences(workspace, dataset.fingerprint)
    return workspace


@pytest.fixture
def pair(workspace: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of the small world's workspace: their trainings differ in options, so folders would not be one."""
    other = tmp_path / "other"
    shutil.copytree(workspace, other)
    return workspace, other


@pytest.mark.training
@pytest.mark.parametrize("network", ["gpt2", "pointer"])
def test_lever_lm(toy: Workspace, tmp_path: Path, network: str) -> None:
    """55 rows or so do not divide by 16; validations stand within epochs."""
    small = {"network": network, "n_embd": 16, "n_head": 2, "n_layer": 1, "epochs": 4, "dropout": 0, "lr": 1e-2}
    shutil.copytree(toy.root, tmp_path / "other")
    one = trained(toy.root, "lever-lm", {**small, "batch_size": 14}, ONE)
    two = trained(tmp_path / "other", "lever-lm", {**small, "batch_size": 7}, TWO)
    same(one, two, "train_loss_step")


@pytest.mark.reliability
def test_live(pair: tuple[Path, Path]) -> None:
    """17 examples in batches of 8: the last has 1, which one of the processes has no share in."""
    options = {"shots": 2, "max_train_size": 17, "epochs": 3, "accumulate": 1, "lr": 1e-2, "alpha_lr": 1e-1}
    one = trained(pair[0], "live", {**options, "batch_size": 8}, ONE)
    two = trained(pair[1], "live", {**options, "batch_size": 4}, TWO)
    same(one, two, "loss")


@pytest.mark.reliability
def test_captioner(pair: tuple[Path, Path]) -> None:
    """17 captions in batches of 8, gradients of two added up; answers of different lengths weigh by their tokens."""
    options = {
        "epochs": 4, "max_train_size": 17, "lr": 1e-3, "schedule": "constant", "warmup_lr": 0.0, "freeze": "none",
        "image_size": 32, "crop": "none", "captions": "first", "select": "loss", "itm": "true", "accumulate": 2,
        "label_smoothing": 0.1, "clip": 1.0,
    }  # fmt: skip
    one = trained(pair[0], "captioner", {**options, "batch_size": 8}, ONE)
    two = trained(pair[1], "captioner", {**options, "batch_size": 4}, TWO)
    same(one, two, "loss")


LIVE = {"shots": 2, "max_train_size": 17, "batch_size": 4, "accumulate": 1, "epochs": 4, "lr": 1e-2}


@pytest.mark.reliability
def test_killed_processes_go_on_to_the_same_result(pair: tuple[Path, Path]) -> None:
    whole = trained(pair[0], "live", LIVE, TWO)
    first, second = ranks(killed_in_the_second_epoch, command(pair[1], "live", LIVE, TWO))
    assert ended(first) == -signal.SIGKILL
    second.kill()
    ended(second)
    assert list(pair[1].glob("checkpoints/*/resume.ckpt"))
    same_result(whole, trained(pair[1], "live", LIVE, TWO))
    assert not list(pair[1].glob("checkpoints/*/resume.ckpt"))


def failing(arguments: list[str], rank: int) -> int:
    """One of the processes cannot read an image."""
    from icltool.components.learners.interventions.module import InterventionModule

    learnt = InterventionModule.losses

    def losses(self: Any, positions: Any) -> Any:
        if self.global_step == 2 and self.global_rank == rank:
            raise DataError("image 7 cannot be read", "look at it")
        return learnt(self, positions)

    InterventionModule.losses = losses  # type: ignore[method-assign]
    return run(arguments)


@pytest.mark.reliability
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_ends_the_other(workspace: Path, tmp_path: Path, rank: int) -> None:
    logs = (tmp_path / "0.txt", tmp_path / "1.txt")
    codes = both_ranks(failing, command(workspace, "live", LIVE, TWO), rank, outputs=logs)
    assert not set(codes) & {0, 1}
    texts = [file.read_text() for file in logs]
    assert "Traceback" not in "".join(texts)
    assert "error: image 7 cannot be read" in texts[rank]
    assert "another process of the training has failed" in texts[1 - rank]


#: A command that Lightning starts a second time.
FAILING = """
import sys
from tests.commands.train.test_several_processes import failing

sys.exit(failing(sys.argv[1:], int(sys.argv[-1].removeprefix("seed="))))
"""


@pytest.mark.reliability
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_ends_all(workspace: Path, tmp_path: Path, rank: int) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, str(script), *command(workspace, "live", LIVE, TWO), "--set", f"seed={rank}"],
        env={**environment(), "PYTHONPATH": root}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, stderr = process.communicate(timeout=200)
        assert process.returncode not in (0, 1), stderr
        assert "Traceback" not in stderr
        assert "error: image 7 cannot be read" in stderr
        assert rank == 0 or "another process of the training has failed" in stderr or process.returncode < 0
        deadline = time.monotonic() + 20
        while _group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _group_lives(process.pid)
    finally:
        if _group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"devices": "2", "num_nodes": "2"}, "this command does not run on other machines"),
        ({"devices": "2", "accelerator": "gpu"}, "Lightning's Trainer rejects its options"),
        ({"devices": "two"}, "Lightning's Trainer rejects its options"),
        ({"devices": "2", "strategy": "dpp"}, "Lightning's Trainer rejects its options"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_what_cannot_be_started_is_one_line(workspace: Path, trainer: dict[str, str], message: str) -> None:
    from icltool.commands.train import run as train
    from icltool.commands.train.options import TrainConfig

    config = TrainConfig(
        workspace=workspace, learner="live", task="caption", model="tiny-idefics", device="cpu",
        options={"shots": 2, "max_train_size": 8}, trainer={"accelerator": "cpu", **trainer},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=message) as caught:
        train.run(config, RecordingProgress())
    assert "\n" not in caught.value.message
    assert caught.value.hint
