"""What the packaged models can do, measured through the real stages' parts and printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from icltool.commands.prepare import run as prepare
from icltool.commands.prepare.options import PrepareConfig
from icltool.components.tasks import task_named
from icltool.contracts import Example, GenerationOptions, ScoringRequest, keyed_generator
from icltool.engine.opening import open_session
from icltool.engine.session import Session
from icltool.execution.progress import for_terminal
from icltool.plugin.manager import component
from icltool.store.records import PreparedDataset, Records, open_dataset
from icltool.world.scenes import COLOURS, SHAPES, dataset_lexicon, split_scenes, training_lexicon
from tests.world.recipe.architecture import build_idefics
from tests.world.recipe.episodes import Difficulty, RenderPool, draw_episode
from tests.world.recipe.tokenizer import build_tokenizer
from tests.world.recipe.train_idefics import Encoder, Recipe, losses, train

QUIET = for_terminal(quiet=True)
WEIGHTS = Path(__file__).parents[2] / "icltool" / "world" / "weights"
#: What guessing among the 16 words of the world gives, in %; there are 32 nonce words, so a model could do worse.
CHANCE = 100 / (len(COLOURS) + len(SHAPES))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedDataset]:
    """The default world, as `icltool prepare shapes` makes it, in fewer images of the same scenes."""
    workspace, tasks = tmp_path_factory.mktemp("default-world"), ("caption", "vqa")
    sizes: dict[str, Any] = {"index_images": 208, "validation_images": 48}
    for task in tasks:
        prepare.run(PrepareConfig(workspace=workspace, name="shapes", task=task, options=sizes), QUIET)
    return {task: open_dataset(workspace / "datasets" / "shapes" / task) for task in tasks}


def word_accuracy(session: Session, requests: Sequence[ScoringRequest]) -> float:
    """Share of the label's secret words that the model's answers hold, in per cent."""
    answers = session.answers(requests)
    metric = component("metrics", "word-accuracy")
    references = [(r.query.label,) if session.task == "vqa" else r.query.references for r in requests]
    return float(np.mean(metric.score(answers, references)) * 100)


def covering(index: Sequence[Example], query: Example, shots: int) -> tuple[Example, ...]:
    """Demonstrations of which one shares the query's colour and one its shape, the rest at random, in random order."""
    rng = keyed_generator(0, "test.covering", query.id)
    colour, shape = query.group.split("-")
    fitting = [e for i in rng.permutation(len(index)) if (e := index[i]).question == query.question]
    by_colour = next(e for e in fitting if e.group.split("-")[0] == colour)
    by_shape = next(e for e in fitting if e.group.split("-")[1] == shape)
    chosen = [by_colour, by_shape, *(e for e in fitting if e not in (by_colour, by_shape))][:shots]
    return tuple(chosen[i] for i in rng.permutation(len(chosen)))


def drawn(index: Sequence[Example], query: Example, shots: int) -> tuple[Example, ...]:
    rng = keyed_generator(0, "test.random", query.id)
    return tuple(index[int(r)] for r in rng.permutation(len(index))[:shots])


def examples(records: Records) -> list[Example]:
    return records.rows(np.arange(len(records)))


def measured(model: Any, dataset: PreparedDataset, covering_shots: Sequence[int]) -> dict[str, float]:
    """Word accuracy without demonstrations, with four at random, and with numbers of them that cover the query."""
    index, queries = examples(dataset.split("train")), examples(dataset.split("validation"))
    options = GenerationOptions(task_named(dataset.task).max_new_tokens)
    session = open_session(dataset.task, model, options, 64, 2**28)
    settings = {
        "zero-shot": [()] * len(queries),
        "4 at random": [drawn(index, q, 4) for q in queries],
        **{f"{k} that cover": [covering(index, q, k) for q in queries] for k in covering_shots},
    }
    return {
        name: word_accuracy(session, [ScoringRequest(q, d) for q, d in zip(queries, demos, strict=True)])
        for name, demos in settings.items()
    }


@pytest.mark.training
def test_the_model_learns_words_from_demonstrations_and_knows_none_without(
    world: dict[str, PreparedDataset], tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = measured(tiny_model, world["caption"], (2, 4, 8, 16))
    with capsys.disabled():
        print(f"\nword accuracy of captions, % (chance {CHANCE:.1f}):", {k: round(v, 1) for k, v in figures.items()})
    assert figures["zero-shot"] <= CHANCE + 5
    assert figures["4 that cover"] >= 95
    assert min(figures["2 that cover"], figures["8 that cover"]) >= 95
    assert figures["16 that cover"] >= 90
    assert figures["zero-shot"] + 20 < figures["4 at random"] < figures["4 that cover"] - 20


@pytest.mark.training
def test_answers_to_questions(
    world: dict[str, PreparedDataset], tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = measured(tiny_model, world["vqa"], (4, 8))
    with capsys.disabled():
        print("\nright answers of vqa, %:", {k: round(v, 1) for k, v in figures.items()})
    assert figures["zero-shot"] <= CHANCE + 5
    assert figures["4 that cover"] >= 90
    assert figures["zero-shot"] < figures["4 at random"] < figures["4 that cover"] - 20


def test_neighbours_of_the_encoder_are_alike_in_colour_first(small_world: Path) -> None:
    from icltool.store.embeddings import EmbeddingFile

    dataset = open_dataset(small_world / "datasets" / "shapes" / "caption")
    groups = {
        s: [dataset.split(s)[i].group.split("-") for i in range(len(dataset.split(s)))] for s in ("train", "validation")
    }
    vectors = {
        s: EmbeddingFile.open(small_world / "embeddings" / f"shapes-caption-{s}-tiny-clip.h5").read("image")
        for s in groups
    }
    unit = {s: v / np.linalg.norm(v, axis=1, keepdims=True) for s, v in vectors.items()}
    nearest = np.argmax(unit["validation"] @ unit["train"].T, axis=1)
    same = np.array(
        [
            [a == b for a, b in zip(groups["validation"][q], groups["train"][r], strict=True)]
            for q, r in enumerate(nearest)
        ]
    )
    colour, shape = same.mean(axis=0)
    assert colour > 0.6
    assert colour > shape
    assert same.any(axis=1).mean() > 0.9


def test_weights_are_small_and_described() -> None:
    total = sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file())
    assert total < 10 * 2**20
    assert {f.suffix for f in WEIGHTS.rglob("*") if f.stat().st_size > 100_000} == {".safetensors"}
    card = (WEIGHTS / "README.md").read_text()
    for word in ("tiny-idefics", "tiny-clip", "tiny-smolvlm", "python -m tests.world.recipe.train", "accuracy"):
        assert word in card


def test_no_meaning_of_the_default_world_was_seen_in_training() -> None:
    secret, known = dataset_lexicon(0), training_lexicon()
    assert len({*secret.colours, *secret.shapes}) == len(COLOURS) + len(SHAPES)
    assert not any(a == b for a, b in zip(secret.colours + secret.shapes, known.colours + known.shapes, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_held_out_scenes_leave_every_attribute_in_the_index(seed: int) -> None:
    index, held_out = split_scenes(seed)
    assert len(index) + len(held_out) == 64
    assert len(held_out) == 12
    assert not set(index) & set(held_out)
    for attribute, count in (("colour", len(COLOURS)), ("shape", len(SHAPES))):
        assert all(sum(getattr(s, attribute) == v for s in index) >= 6 for v in range(count))


@pytest.mark.training
def test_the_recipe_learns(tmp_path: Path) -> None:
    """The curriculum's first lesson, by the real recipe: one colour and one shape per episode are copied."""
    rights: dict[int, float] = {}
    recipe = Recipe(renderings_per_scene=4)

    def report(step: int, steps: int, figures: dict[str, float]) -> None:
        rights[step] = figures["right"]

    train(tmp_path / "model", recipe, report=report, stop=202)
    assert np.mean([rights[s] for s in (1, 26, 51)]) < 0.3
    assert np.mean([rights[s] for s in (151, 176, 201)]) > 0.45
    model = component("models", "tiny-idefics", path=str(tmp_path / "model"), packaged=None, device="cpu")
    assert model.model.config.hidden_size == 128


def test_the_recipe_s_schedules() -> None:
    """One value of each attribute more every 225 steps; the fixed lexicon fades from 40 to 60 % of 3600 steps."""
    recipe = Recipe()
    assert [recipe.difficulty(step).values for step in (0, 224, 225, 1574, 1575, 3599)] == [1, 1, 2, 7, 8, 8]
    shares = [recipe.difficulty(step).fixed_share for step in (0, 1440, 1800, 2160, 3599)]
    assert shares == pytest.approx([0.3, 0.3, 0.15, 0, 0])
    rates = [recipe.rate(step) for step in (0, 49, 99, 100, 1850, 3600)]
    assert rates == pytest.approx([1e-5, 5e-4, 1e-3, 1e-3, 0.51e-3, 2e-5])


def test_a_few_steps_of_the_recipe(tmp_path: Path) -> None:
    """The same weights each time, in a folder that is loaded as the packaged one is."""
    recipe, messages = Recipe(renderings_per_scene=1, batch_size=2), []
    for name in ("one", "other"):
        train(tmp_path / name, recipe, report=lambda *arguments: messages.append(arguments), stop=2)
    assert [(step, steps, figures["values"]) for step, steps, figures in messages] == [(1, 3600, 1)] * 2
    assert messages[0] == messages[1]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "other"))
    assert one.keys() == other.keys() == load_file(WEIGHTS / "tiny-idefics" / "model.safetensors").keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    model = component("models", "tiny-idefics", path=str(tmp_path / "one"), packaged=None, device="cpu")
    assert model.model.config.hidden_size == 128


def test_the_recipe_s_losses_fall_and_what_was_learned_by_heart_is_predicted() -> None:
    """Of one batch: two episodes in the fixed lexicon, in which every word can be known."""
    torch.manual_seed(0)
    rng, tokenizer = np.random.default_rng(0), build_tokenizer()
    model: Any = build_idefics(tokenizer).train()
    heads = torch.nn.ModuleList([torch.nn.Linear(128, len(values)) for values in (COLOURS, SHAPES)])
    pool = RenderPool(1, 0, [0.5] * 3, [0.25] * 3)
    episodes = [draw_episode(rng, 2, task, Difficulty(2, 1.0), pool) for task in ("caption", "vqa")]
    batch = Encoder(tokenizer).batch(episodes, torch.device("cpu"))
    assert int((batch["weights"] == 1).sum()) == 3 * 2 + 3, "two words of each caption, one of each answer"
    optimiser = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-3)
    seen = []
    for _ in range(30):
        main, auxiliary, right = losses(model, heads, batch)
        seen.append((float(main.detach()), float(auxiliary.detach()), float(right)))
        optimiser.zero_grad()
        (main + 0.5 * auxiliary).backward()
        optimiser.step()
    assert seen[0][2] < 0.3
    assert seen[-1][2] == 1
    assert seen[-1][0] < 0.2 * seen[0][0]
    assert seen[-1][1] < 0.5 * seen[0][1]
