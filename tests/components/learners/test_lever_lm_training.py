from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from icltool.components.learners.fitting.trainer import learning_rate_factor
from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.rows import split_by_query
from icltool.components.learners.lever_lm.selector import LeverLMSelector
from icltool.contracts import IntArray, Learner, TrainingSet
from icltool.errors import ConfigError, DataError
from tests.components.learners.synthetic import (
    RecordingProgress,
    Trained,
    kind_of,
    make_index,
    make_queries,
    make_training_set,
)

TINY = {"n_embd": 16, "n_head": 2, "n_layer": 1, "batch_size": 16, "trainer": {"accelerator": "cpu"}}


def held_out_rows(trained: Trained) -> IntArray:
    """Rows of the queries that were never trained on."""
    ids = split_by_query(trained.index.ids[trained.data.query_rows], 0.2, 3)
    return np.flatnonzero(np.isin(trained.index.ids, ids))


def test_it_is_a_learner() -> None:
    assert isinstance(LeverLM(LeverLMOptions()), Learner)


def test_a_trained_selector_beats_random_on_queries_it_never_saw(trained: Trained) -> None:
    rows = held_out_rows(trained)
    assert len(rows) == 18
    chosen = LeverLMSelector.load(trained.folder).decode(trained.index, make_queries(trained.index, rows), 2)
    fitting = float((kind_of(chosen) == kind_of(rows)[:, None]).mean())
    drawn = np.random.default_rng(0).integers(0, len(trained.index), (1000, 2))
    by_chance = float((kind_of(drawn) == kind_of(rows)[np.arange(1000) % len(rows), None]).mean())
    assert by_chance < 0.25
    assert fitting > by_chance + 0.4


def test_history_is_complete_and_losses_fall(trained: Trained) -> None:
    history = trained.outcome.history
    assert len(history) == 24
    assert [entry["epoch"] for entry in history] == [(k + 1) / 2 for k in range(24)]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["lr"] == pytest.approx(0, abs=1e-9)
    assert json.loads((trained.folder / "history.json").read_text()) == history
    with (trained.folder / "logs" / "metrics.csv").open() as file:
        logged = [float(row["val_loss"]) for row in csv.DictReader(file) if row.get("val_loss")]
    assert logged == pytest.approx([entry["val_loss"] for entry in history], rel=1e-5)


def test_checkpoints_are_those_of_the_lowest_losses(trained: Trained) -> None:
    """Each file's loss, computed once more from the file, is the history's lowest (or last)."""
    from icltool.components.learners.lever_lm.model import feature_tensors
    from icltool.components.learners.lever_lm.rows import Vocabulary, training_and_validation

    assert set(trained.outcome.checkpoints) == {"last", "min_vl", "min_tl"}
    losses = [entry["val_loss"] for entry in trained.outcome.history]
    train_losses = [entry["train_loss"] for entry in trained.outcome.history]
    expected = {"last": losses[-1], "min_vl": min(losses), "min_tl": losses[int(np.argmin(train_losses))]}
    _, rows = training_and_validation(trained.data, Vocabulary(len(trained.index)), 0.0, 0.2, False, 3)
    table = feature_tensors(trained.index, trained.learner.needs)
    for name, loss in expected.items():
        model = LeverLMSelector.load(trained.folder, name, device="cpu")._model.float()
        query = {"image": table["image"][rows.queries]}
        icds = {m: values[rows.tokens[:, 2:-1]] for m, values in table.items()}
        with torch.no_grad():
            total, count = model.loss(rows.tokens, rows.labels, query, icds)
        assert float(total / count) == pytest.approx(loss, rel=1e-4), name


def test_nothing_is_pickled(trained: Trained) -> None:
    names = {path.name for path in trained.folder.rglob("*") if path.is_file()}
    assert {"last.safetensors", "min_vl.safetensors", "min_tl.safetensors", "config.json", "README.md"} <= names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".md", ".csv", ".yaml"}


def test_the_card_says_what_it_is(trained: Trained) -> None:
    card = (trained.folder / "README.md").read_text()
    for expected in ("query_img_icd_img_text", "90 examples", "none-at-all", "f00d", "synthetic", "min_vl.safetensors"):
        assert expected in card
    config = json.loads((trained.folder / "config.json").read_text())
    assert config["provenance"]["dataset"] == "synthetic"
    assert config["examples"] == 90


def test_progress_counts_every_step_and_lightning_is_quiet(
    trained: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (description, total) = trained.progress.tasks[0]
    assert description == "train selector"
    assert trained.progress.done == total == int(trained.outcome.history[-1]["step"])
    assert "validation" in trained.progress.notes[-1]
    LeverLM(LeverLMOptions(**TINY, epochs=1)).train(make_training_set(make_index(20)), tmp_path, 0, RecordingProgress())
    assert capfd.readouterr() == ("", "")


def train_tiny(folder: Path, data: TrainingSet, seed: int = 0, **options: Any) -> dict[str, torch.Tensor]:
    LeverLM(LeverLMOptions(**{**TINY, "epochs": 2, **options})).train(data, folder, seed, RecordingProgress())
    return load_file(folder / "last.safetensors")


def test_the_seed_decides_everything_and_outside_generators_go_on(tmp_path: Path) -> None:
    data = make_training_set(make_index(20))
    torch.manual_seed(5)
    first = train_tiny(tmp_path / "a", data)
    drawn = torch.rand(3)
    torch.manual_seed(6)
    second = train_tiny(tmp_path / "b", data)
    other = train_tiny(tmp_path / "c", data, seed=1)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    weight = "network.transformer.wte.weight"
    assert not torch.equal(first[weight], other[weight])
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize("network", ["gpt2", "lstm"])
def test_sequences_of_several_lengths_train_together(network: str, tmp_path: Path) -> None:
    data = make_training_set(make_index(20), shots=3)
    shorter = data.icd_rows.copy()
    shorter[::2, 2] = -1
    mixed = TrainingSet(data.index, data.query_rows, shorter, data.scores)
    LeverLM(LeverLMOptions(**TINY, network=network, epochs=1)).train(mixed, tmp_path, 0, RecordingProgress())
    queries = make_queries(data.index, np.arange(5))
    assert LeverLMSelector.load(tmp_path).decode(data.index, queries, 5).shape == (5, 5)


class Impatient(RecordingProgress):
    """Presses Ctrl-C after some steps."""

    def __init__(self, patience: int, press: Any) -> None:
        super().__init__()
        self.patience, self.press = patience, press

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if self.done == self.patience:
            self.press()


def test_ctrl_c_comes_through_and_finished_validations_stay(tmp_path: Path) -> None:
    data = make_training_set(make_index(20))
    before = signal.getsignal(signal.SIGINT)
    impatient = Impatient(7, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        LeverLM(LeverLMOptions(**TINY, epochs=50)).train(data, tmp_path, 0, impatient)
    assert signal.getsignal(signal.SIGINT) is before
    history = json.loads((tmp_path / "history.json").read_text())
    assert [entry["step"] for entry in history] == [2, 4, 6]
    chosen = LeverLMSelector.load(tmp_path, "last").decode(data.index, make_queries(data.index, np.arange(4)), 2)
    assert chosen.shape == (4, 2)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_new_training_removes_what_an_interrupted_one_left(tmp_path: Path) -> None:
    data = make_training_set(make_index(20))
    train_tiny(tmp_path, data)
    with pytest.raises(KeyboardInterrupt):
        LeverLM(LeverLMOptions(**TINY, epochs=2)).train(
            data, tmp_path, 0, Impatient(1, lambda: signal.raise_signal(signal.SIGINT))
        )
    assert not list(tmp_path.glob("*.safetensors"))
    assert not (tmp_path / "README.md").exists()


def test_trainer_options_reach_lightning(tmp_path: Path) -> None:
    data = make_training_set(make_index(20))
    options = {**TINY, "trainer": {"accelerator": "cpu", "max_steps": 3, "val_check_interval": 1}}
    outcome = LeverLM(LeverLMOptions(**options, epochs=5)).train(data, tmp_path, 0, RecordingProgress())
    assert [entry["step"] for entry in outcome.history] == [1, 2, 3]


@pytest.mark.parametrize(("validations", "steps"), [(1, [4, 8]), (3, [2, 4, 6, 8, 10, 12])])
def test_validations_are_evenly_spaced_and_one_ends_the_epoch(
    validations: int, steps: list[int], tmp_path: Path
) -> None:
    learner = LeverLM(LeverLMOptions(**TINY, epochs=2, validations_per_epoch=validations))
    outcome = learner.train(make_training_set(make_index(20)), tmp_path, 0, RecordingProgress())
    assert [entry["step"] for entry in outcome.history] == steps
    assert outcome.history[-1]["epoch"] == 2


@pytest.mark.parametrize(
    ("trainer", "said"),
    [({"acelerator": "cpu"}, "acelerator"), ({"accelerator": "abacus"}, "abacus"), ({"precision": "7"}, "7")],
)
def test_options_that_lightning_refuses_are_one_line(trainer: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rejects its options") as caught:
        LeverLM(LeverLMOptions(**{**TINY, "trainer": trainer})).train(
            make_training_set(make_index(20)), tmp_path, 0, RecordingProgress()
        )
    assert said in caught.value.message
    assert "\n" not in str(caught.value)


def test_a_run_that_never_validates_is_an_error(tmp_path: Path) -> None:
    options = {**TINY, "trainer": {"accelerator": "cpu", "limit_val_batches": 0}}
    with pytest.raises(ConfigError, match="first validation"):
        LeverLM(LeverLMOptions(**options, epochs=1)).train(
            make_training_set(make_index(20)), tmp_path, 0, RecordingProgress()
        )


def test_divergence_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="diverged"):
        LeverLM(LeverLMOptions(**TINY, lr=1e30, epochs=2)).train(
            make_training_set(make_index(20)), tmp_path, 0, RecordingProgress()
        )


def test_sequences_longer_than_the_positions_are_refused(tmp_path: Path) -> None:
    data = make_training_set(make_index(20), shots=4)
    with pytest.raises(ConfigError, match="n_positions"):
        LeverLM(LeverLMOptions(**TINY, n_positions=6)).train(data, tmp_path, 0, RecordingProgress())
    with pytest.raises(DataError, match="no sequences"):
        LeverLM(LeverLMOptions(**TINY)).train(
            TrainingSet(data.index, data.query_rows[:0], data.icd_rows[:0], data.scores[:0]),
            tmp_path,
            0,
            RecordingProgress(),
        )


def test_the_learning_rate_rises_then_falls_on_a_cosine() -> None:
    factors = [learning_rate_factor(step, 10, 110) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[110] == pytest.approx(0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert learning_rate_factor(0, 0, 10) == 1


def test_tensorboard_gets_the_losses(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {**TINY, "loggers": "tensorboard", "trainer": {**TINY["trainer"], "log_every_n_steps": 1}}
    outcome = LeverLM(LeverLMOptions(**options, epochs=2)).train(
        make_training_set(make_index(20)), tmp_path, 0, RecordingProgress()
    )
    [events] = (tmp_path / "logs").glob("events.out.tfevents.*")
    read = EventAccumulator(str(events)).Reload()
    assert {"train_loss", "val_loss", "train_loss_step", "lr"} <= set(read.Tags()["scalars"])
    logged = [event.value for event in read.Scalars("val_loss")]
    assert logged == pytest.approx([entry["val_loss"] for entry in outcome.history], rel=1e-5)
    assert (tmp_path / "logs" / "metrics.csv").is_file()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import loggers

    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(loggers, "TensorBoardLogger" if name == "tensorboard" else "WandbLogger", missing)
    with pytest.raises(ConfigError, match=f"logger '{name}' is not installed") as caught:
        LeverLM(LeverLMOptions(**TINY, loggers=name)).train(
            make_training_set(make_index(20)), tmp_path, 0, RecordingProgress()
        )
    assert f"icltool[{name}]" in str(caught.value.hint)
