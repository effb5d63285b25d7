"""`train` of what stands in for demonstrations: the stage on a real workspace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.train import run as train
from icltool.commands.train.options import TrainConfig
from icltool.components.interventions.files import read_intervention
from icltool.contracts import StageReport
from icltool.errors import ConfigError, PluginError, StoreError
from icltool.execution.progress import for_terminal
from icltool.store.locking import locked
from tests.commands.train.forked import FORKED, command_line, ended, started

SMALL: dict[str, Any] = {"shots": 2, "max_train_size": 8, "epochs": 1, "batch_size": 4}


def run(workspace: Path, learner: str = "live", **changes: Any) -> StageReport:
    settings: dict[str, Any] = {
        "workspace": workspace,
        "learner": learner,
        "task": "caption",
        "model": "tiny-idefics",
        "options": SMALL,
        **changes,
    }
    return train.run(TrainConfig(**settings), for_terminal(quiet=True))


def test_it_needs_neither_sequences_nor_embeddings_and_says_what_it_made(workspace: Path) -> None:
    report = run(workspace)
    assert report.path is not None
    assert report.path.name.startswith("live-shapes-caption-tiny-idefics-")
    assert report.rows()[0]["checkpoint"] == "last"
    about = read_intervention(report.path / "last.safetensors").about
    assert about["dataset"] == "shapes"
    assert about["shots"] == 2
    record = json.loads((report.path / "training.json").read_text())
    assert record["identity"]["model"] == "tiny-idefics"
    assert record["provenance"]["plugins"].keys() == {"learners/live", "models/tiny-idefics"}


def test_the_same_training_is_up_to_date_and_another_one_has_a_folder_of_its_own(workspace: Path) -> None:
    first = run(workspace)
    again = run(workspace, batch_size=3)
    assert again.path == first.path
    assert any("up to date" in line for line in again.lines())
    assert any("up to date" in line for line in run(workspace, options={**SMALL, "lr": 1e-3}).lines())  # the default
    others = [
        run(workspace, seed=1),
        run(workspace, options={**SMALL, "shots": 1}),
        run(workspace, leak_guard=("image",)),
        run(workspace, prompt_template="live"),
        run(workspace, task="vqa"),
    ]
    assert len({first.path, *(report.path for report in others)}) == 6
    assert not any("up to date" in line for line in run(workspace, overwrite=True).lines())


def test_the_leak_guard_decides_what_the_teacher_sees(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions: no demonstration has one of the query's own captions, unless the user says otherwise."""
    from icltool.components.learners.interventions.draws import Draws

    seen: list[bool] = []
    real = Draws.prompts

    def watched(self: Draws, positions: Any, shots: int, draw: int = 0) -> Any:
        for position in positions:
            (query,) = self.examples([position])
            labels = [d.label for d in self.examples(self.demonstrations(int(position), shots, draw))]
            seen.append(bool(set(labels) & set(query.references)))
        return real(self, positions, shots, draw)

    monkeypatch.setattr(Draws, "prompts", watched)
    options, trainer = {**SMALL, "shots": 8, "max_train_size": 100}, {"limit_train_batches": 6}
    run(workspace, options=options, trainer=trainer)
    assert seen
    assert not any(seen)
    seen.clear()
    run(workspace, options=options, trainer=trainer, leak_guard=("image",))
    assert not any(seen)  # near-duplicates have the same caption here, and they are always kept away


def test_wrong_options_are_one_clear_line(workspace: Path) -> None:
    with pytest.raises(ConfigError, match="--sequences: live learns from examples"):
        run(workspace, sequences=workspace / "x.h5")
    with pytest.raises(PluginError, match="unknown model 'tiny-idefix'"):
        run(workspace, model="tiny-idefix")
    with pytest.raises(PluginError, match="unknown learner 'life'"):
        run(workspace, learner="life")
    with pytest.raises(ConfigError, match="'live' has no option 'few_shot_num'"):
        run(workspace, options={"few_shot_num": 8})
    with pytest.raises(StoreError, match="no data set is prepared"):
        run(workspace / "elsewhere")


def test_a_second_run_into_the_same_folder_is_refused(workspace: Path) -> None:
    report = run(workspace)
    assert report.path is not None
    with locked(report.path), pytest.raises(StoreError, match="is being written"):
        run(workspace, overwrite=True)


def test_an_interrupted_run_starts_where_it_was_and_overwrite_starts_anew(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icltool.components.learners.fitting import runner

    def interrupted(self: Any, trainer: Any, *rest: Any) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    options = {**SMALL, "epochs": 3}
    with monkeypatch.context() as patch:
        patch.setattr(runner.Reporter, "on_train_batch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(workspace, options=options)
    (folder,) = (workspace / "checkpoints").glob("live-*")
    folder = folder if folder.is_dir() else folder.parent
    assert (folder / "resume.ckpt").is_file()
    assert not (folder / "training.json").is_file()
    assert [row["epoch"] for row in run(workspace, options=options).rows()] == [3]
    assert not (folder / "resume.ckpt").exists()
    with monkeypatch.context() as patch:
        patch.setattr(runner.Reporter, "on_train_batch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(workspace, options=options, overwrite=True)
    (folder / "resume.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(StoreError, match=r"resume\.ckpt cannot be read"):
        run(workspace, options=options)
    assert run(workspace, options=options, overwrite=True).rows()[0]["epoch"] == 3


def killed_in_the_second_epoch(arguments: list[str]) -> int:
    from icltool.components.learners.fitting import runner

    def killed(self: Any, trainer: Any, *rest: Any) -> None:
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    runner.Reporter.on_train_batch_end = killed  # type: ignore[method-assign]
    return command_line(arguments)


def command(workspace: Path, *options: str) -> list[str]:
    arguments = ["train", "live", "--task", "caption", "--model", "tiny-idefics", "--device", "cpu"]
    return [*arguments, "--workspace", str(workspace), *(text for option in options for text in ("--option", option))]


@pytest.mark.reliability
@FORKED
def test_a_killed_training_goes_on_to_the_same_file(workspace: Path, tmp_path: Path) -> None:
    arguments = command(workspace, "shots=4", "max_train_size=12", "epochs=4", "batch_size=4")
    assert ended(started(command_line, arguments)) == 0
    (folder,) = [p for p in (workspace / "checkpoints").glob("live-*") if p.is_dir()]
    reference = shutil.copy(folder / "last.safetensors", tmp_path / "reference.safetensors")
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
    assert ended(started(killed_in_the_second_epoch, arguments)) == -signal.SIGKILL
    assert (folder / "resume.ckpt").exists()
    log = tmp_path / "told.txt"
    assert ended(started(command_line, arguments, output=log)) == 0, log.read_text()
    assert "resuming after the last complete epoch" in log.read_text()
    assert (
        read_intervention(folder / "last.safetensors")
        .tensors["vectors"]
        .equal(read_intervention(reference).tensors["vectors"])
    )


@pytest.mark.reliability
def test_two_processes_train_one_file_and_print_one_table(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Examples that do not divide evenly; the processes of a distributed training run the same command, the second of them
    started by Lightning."""
    options = ("shots=2", "max_train_size=21", "epochs=2", "batch_size=4", "accumulate=1", "teacher_draws=1")
    arguments = command(workspace, *options)
    for option in ("devices=2", "strategy=ddp", "accelerator=cpu"):
        arguments += ["--trainer", option]
    done = subprocess.run(
        [sys.executable, "-m", "icltool", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written:") + done.stderr.count("written:") == 1
    (folder,) = [p for p in (workspace / "checkpoints").glob("live-*") if p.is_dir()]
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["README.md", "last.safetensors", "training.json"]
    history = json.loads((folder / "training.json").read_text())["history"]
    assert [record["epoch"] for record in history] == [1, 2]
    assert history[-1]["step"] == 2 * 3  # 11 examples each, in batches of 4
    assert command_line(arguments) == 0
    assert "up to date" in "".join(capsys.readouterr())
