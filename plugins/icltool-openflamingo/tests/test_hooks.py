"""Hooks into the decoder. That they conform is part of `check_model`; here is what open_flamingo's layers add."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from icltool import Example, Prompt
from icltool.components.learners.live.options import LiveOptions
from icltool.testing import make_examples
from icltool.testing.hooks import adding, check_hooks

if TYPE_CHECKING:
    from tiny_flamingo import Tiny

LAYERS = {"mosaic": 3, "mpt": 4, "llama": 4}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return make_examples(tmp_path_factory.mktemp("images"), 6)


def prompts_of(tiny: Tiny, examples: list[Example]) -> list[Prompt]:
    """One begins with text before its image, one has no image."""
    from dataclasses import replace

    demonstrations = tiny.loaded.prompt("caption", examples[1:3], examples[0])
    blind = tiny.loaded.prompt("caption", [], replace(examples[4], image=""))
    return [
        replace(demonstrations, text="what is it " + demonstrations.text),
        blind,
        tiny.loaded.prompt("caption", [], examples[3]),
    ]


def test_prompts_without_images_conform(tiny_mpt: Tiny, examples: list[Example]) -> None:
    prompts = prompts_of(tiny_mpt, examples)
    paths = [e.image for e in examples]
    check_hooks(tiny_mpt.loaded, prompts, dict(zip(paths, tiny_mpt.loaded.image_features(paths, 4), strict=True)), 1e-4)


def test_a_language_block_is_shifted_behind_its_layer(tiny: Tiny, examples: list[Example]) -> None:
    model, layers = tiny.loaded, LAYERS[tiny.kind]
    vectors, blocks = [torch.full((32,), 0.1)] * layers, model.shifted_modules()
    assert [type(block).__name__ for block in blocks] == ["FlamingoLayer"] * layers
    assert list(model.decoder_layers()) == [block.decoder_layer for block in blocks]
    batch = model.answer_batch(prompts_of(tiny, examples), None)
    actual = []
    for modules in (blocks, model.decoder_layers()):
        with torch.no_grad(), adding(modules, vectors):
            actual.append(model.answer_logits(batch))
    assert torch.equal(*actual)


def test_heads_are_those_of_the_language_model(tiny: Tiny) -> None:
    heads = tiny.loaded.attention_heads()
    assert [(h.heads, h.head_width) for h in heads] == [(4, 8)] * LAYERS[tiny.kind]
    assert all((h.query is h.value) == (tiny.kind != "llama") for h in heads)
    assert heads[0].query.out_features == (32 if tiny.kind == "llama" else 96)


def test_nothing_is_left_behind(tiny_mpt: Tiny, examples: list[Example]) -> None:
    model = tiny_mpt.loaded
    batch = model.answer_batch(prompts_of(tiny_mpt, examples), None)
    assert not model.model.lang_encoder.is_conditioned()
    handle = model.decoder_layers()[-1].register_forward_hook(lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.answer_logits(batch)
    handle.remove()
    assert not model.model.lang_encoder.is_conditioned()


def test_the_base_model_is_all_three_parts(tiny_mpt: Tiny, tmp_path: Path) -> None:
    from tiny_flamingo import load

    base = tiny_mpt.loaded.base_model()
    folder = shutil.copytree(tiny_mpt.folder, tmp_path / "copy")
    copied = load("mpt", folder)
    assert copied.base_model() == base
    assert load("mpt", folder, template="live").base_model().template != base.template
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({key: 2 * value for key, value in state.items()}, folder / "checkpoint.pt")
    assert load("mpt", folder).base_model().weights != base.weights


def test_live_is_trained_and_used(tiny_mpt: Tiny, examples: list[Example], tmp_path: Path) -> None:
    """Vectors at the language blocks, from a teacher with one demonstration."""
    from icltool.components.interventions.shift import ShiftVectors
    from icltool.components.interventions.stored import StoredOptions
    from icltool.components.learners.live.learner import Live
    from icltool.testing import QuietProgress, make_intervention_set

    model = tiny_mpt.loaded
    options = {
        "shots": 1,
        "max_train_size": 6,
        "epochs": 2,
        "batch_size": 3,
        "accumulate": 1,
        "lr": 0.1,
        "alpha_lr": 1.0,
    }
    learner = Live(LiveOptions(**options, grad_checkpointing=True))
    outcome = learner.learn_intervention(make_intervention_set(model, examples), tmp_path, 0, QuietProgress())
    prompts = [model.prompt("caption", (), example) for example in examples]
    before = model.score(prompts, 6)
    with ShiftVectors(StoredOptions(method="live", file=outcome.checkpoints["last"])).applied(model):
        steered = model.score(prompts, 6)
    assert sum(s.log_prob for s in steered) > sum(s.log_prob for s in before)
    assert model.score(prompts, 6) == before
