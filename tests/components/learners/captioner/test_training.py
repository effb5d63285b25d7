"""What a training leaves, and what it says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icltool.components.learners.captioner.validation import figure
from icltool.components.models.shared.fine_tuned import read_fine_tuned
from icltool.components.tasks import task_named
from icltool.contracts import Example, FineTuningSet, GenerationOptions, Metric
from icltool.errors import ConfigError, DataError
from tests.components.learners.captioner.model import TinyCaptioner
from tests.components.learners.captioner.overlap import WordOverlap
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set
from tests.components.learners.synthetic import RecordingProgress

NORM = "encoder.embeddings.patch_embeddings.projection.norm.running_mean"


@pytest.fixture(scope="module")
def trained(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, progress, data = tmp_path_factory.mktemp("trained"), RecordingProgress(), fine_tuning_set(examples)
    outcome = fine_tuned(data, folder, progress, epochs=6, select="overlap")
    return data, folder, progress, outcome


def test_it_learns_and_leaves_weights_history_and_card(trained: Any) -> None:
    _, folder, progress, outcome = trained
    assert outcome.checkpoints == {name: folder / f"{name}.safetensors" for name in ("best", "last")}
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "best.safetensors", "last.safetensors", "logs"]
    first, last = outcome.history[0], outcome.history[-1]
    assert last["train_loss"] < 0.7 * first["train_loss"]
    assert last["val_loss"] < first["val_loss"]
    expected = {"epoch", "step", "train_loss", "train_xe", "val_loss", "val_overlap", "selected"}
    assert set(last) == expected | {"images_per_second", "images_per_second_per_device"}
    assert [record["step"] for record in outcome.history] == [9 * k for k in range(1, 7)]
    assert progress.tasks == [("train captioner", 54)]
    assert "images/s per device" in progress.notes[-1]
    card = (folder / "README.md").read_text()
    for text in ("tiny-captioner", "in memory", "--method finetuned", "val_overlap", "label_smoothing"):
        assert text in card


def test_the_network_is_left_as_it_is_used(trained: Any) -> None:
    network = trained[0].model.network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())


def test_the_last_file_holds_what_the_network_has_become(trained: Any) -> None:
    data, folder, _, _ = trained
    state, saved = data.model.network.state_dict(), load_file(folder / "last.safetensors")
    assert NORM in saved
    for name, tensor in saved.items():
        assert torch.equal(tensor, state[name]), name
    fresh = TinyCaptioner().network.state_dict()
    tied = "decoder.lm_head.weight"  # the input embeddings under a second name
    assert all(torch.equal(fresh[name], state[name]) for name in state if name not in saved and name != tied)
    assert any(not torch.equal(fresh[name], saved[name]) for name in saved)


def test_the_best_file_is_that_of_the_best_validation(trained: Any) -> None:
    _, folder, _, outcome = trained
    best = max(outcome.history, key=lambda record: record["selected"])
    about = read_fine_tuned(folder / "best.safetensors").about
    assert about["figures"]["epoch"] == best["epoch"]
    assert about["figures"]["val_overlap"] == best["val_overlap"]
    assert about["options"]["epochs"] == 6
    assert about["captions"] == 35


def test_the_figures_are_the_model_s_own(trained: Any) -> None:
    """`val_loss` and the metric beside `Model.score` and `Model.generate` after the training."""
    data, _, _, outcome = trained
    model, held = data.model, data.development.rows(range(len(data.development)))
    prompts = [model.prompt("caption", (), example) for example in held]
    scores = model.score(prompts, 2)
    loss = -sum(s.log_prob for s in scores) / sum(s.tokens for s in scores)
    assert outcome.history[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)
    answers = [model.clean("caption", text) for text in model.generate(prompts, data.generation, 2)]
    own = WordOverlap().score(answers, [example.references for example in held]).mean()
    assert outcome.history[-1]["val_overlap"] == pytest.approx(100 * own, rel=1e-6)


def test_a_frozen_batch_norm_keeps_its_statistics(examples: list[Example], tmp_path: Path) -> None:
    data = fine_tuning_set(examples)
    before = data.model.network.state_dict()[NORM].clone()  # type: ignore[attr-defined]
    outcome = fine_tuned(data, tmp_path, freeze="vision", epochs=1)
    assert torch.equal(data.model.network.state_dict()[NORM], before)  # type: ignore[attr-defined]
    saved = load_file(outcome.checkpoints["last"])
    assert NORM not in saved
    assert {name.split(".")[1] for name in saved if name.startswith("encoder.")} == {"layernorm"}


def test_checkpointed_activations_change_no_step(examples: list[Example], tmp_path: Path) -> None:
    files = []
    for on in (False, True):
        data = fine_tuning_set(examples, TinyCaptioner(dropout=0.0))
        outcome = fine_tuned(data, tmp_path / str(on), grad_checkpointing=on, freeze="vision", epochs=1, lr=1e-3)
        files.append(load_file(outcome.checkpoints["last"]))
    for name, tensor in files[0].items():
        assert torch.allclose(tensor, files[1][name], atol=1e-6), name


def test_mixed_precision_trains_in_float32_and_leaves_what_it_found(examples: list[Example], tmp_path: Path) -> None:
    data = fine_tuning_set(examples)
    data.model.network.to(torch.bfloat16)  # type: ignore[attr-defined]
    outcome = fine_tuned(data, tmp_path, freeze="vision", scst=True, scst_metric="overlap", reward_workers=0)
    assert {t.dtype for t in load_file(outcome.checkpoints["last"]).values() if t.is_floating_point()} == {
        torch.float32
    }
    left = {p.dtype for p in data.model.network.parameters()}  # type: ignore[attr-defined]
    assert left == {torch.bfloat16}
    fresh = TinyCaptioner().network.to(torch.bfloat16).state_dict()
    now = data.model.network.state_dict()  # type: ignore[attr-defined]
    assert any(not torch.equal(fresh[name], now[name]) for name in now if name.startswith("decoder."))


def test_accumulated_batches_are_one_large_batch(examples: list[Example], tmp_path: Path) -> None:
    """Without dropout, with captions of one length."""
    equal = [e for e in examples if len(TinyCaptioner()._ids([e.label])[0]) == 5] or examples[:1] * 8
    files = []
    for size, accumulate in ((4, 1), (2, 2)):
        data = fine_tuning_set((equal * 18)[:18], TinyCaptioner(dropout=0.0))
        options = {
            "batch_size": size,
            "accumulate": accumulate,
            "captions": "first",
            "freeze": "vision",
            "crop": "none",
        }
        outcome = fine_tuned(data, tmp_path / str(size), **options, flip=False, epochs=2, lr=1e-3)
        files.append(load_file(outcome.checkpoints["last"]))
    for name, tensor in files[0].items():
        if not name.endswith("bias"):  # those of keys have no gradient but noise, which AdamW makes a step of
            assert torch.allclose(tensor, files[1][name], atol=1e-4), name


def test_early_stopping_and_rare_validations(examples: list[Example], tmp_path: Path) -> None:
    still = fine_tuned(fine_tuning_set(examples), tmp_path / "still", lr=1e-30, freeze="vision", patience=2, epochs=9)
    assert len(still.history) == 3
    rare = fine_tuned(fine_tuning_set(examples), tmp_path / "rare", validate_every=3, epochs=5)
    assert ["val_loss" in record for record in rare.history] == [False, False, True, False, True]


def test_no_development_examples_and_a_loss_that_is_no_number(examples: list[Example], tmp_path: Path) -> None:
    data = fine_tuning_set(examples)
    bare = FineTuningSet(**{**vars(data), "development": fine_tuning_set(examples[:7]).examples.__class__([])})
    with pytest.raises(DataError, match="no development examples"):
        fine_tuned(bare, tmp_path)
    with pytest.raises(ConfigError, match=r"diverged: the loss of batch \d+ of epoch 1 is not a number"):
        fine_tuned(fine_tuning_set(examples), tmp_path, lr=1e30)
    with pytest.raises(ConfigError, match="Trainer rejects its options"):
        fine_tuned(fine_tuning_set(examples), tmp_path, trainer={"devices": 0})


def test_development_examples_are_drawn_by_seed(examples: list[Example], tmp_path: Path) -> None:
    losses = [
        fine_tuned(fine_tuning_set(examples, held=12), tmp_path / f"{size}{seed}", seed=seed, lr=1e-30, freeze="vision",
              epochs=1, development_size=size).history[0]["val_loss"]
        for size, seed in ((12, 0), (12, 1), (4, 0), (4, 1))
    ]  # fmt: skip
    assert losses[0] == losses[1]
    assert losses[2] != losses[3]


class Corpus(WordOverlap):
    """A metric whose corpus figure is no mean."""

    def figures(self, judgements: Any, weights: Any) -> Any:
        return weights @ [float(len(judged.references)) for judged in judgements]


def test_corpus_figures_are_asked_for_where_a_metric_has_them(examples: list[Example]) -> None:
    whole: Metric = Corpus()
    assert figure(whole, ["a"] * 4, examples[:4]) == sum(len(example.references) for example in examples[:4])


def test_targets_are_cut_and_styles_are_asked(styled: list[Example], tmp_path: Path) -> None:
    data = fine_tuning_set(styled, held=4, task=task_named("style").model_copy(update={"max_new_tokens": 8}))
    outcome = fine_tuned(data, tmp_path, max_target_tokens=1, label_smoothing=0.1, epochs=4, lr=3e-2)
    assert outcome.history[-1]["val_loss"] < math.log(400)
    answers = data.model.generate(
        [data.model.prompt("style", (), example) for example in styled[:2]], GenerationOptions(3, 1), 2
    )
    assert len(answers) == 2
