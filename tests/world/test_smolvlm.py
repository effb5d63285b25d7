"""tiny-smolvlm: its recipe, and what the packaged weights can do on easy-VQA's test questions."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from icltool.components.models.shared.weights import packaged_weights
from icltool.config.resolve import resolve
from icltool.contracts import Example, GenerationOptions, ScoringRequest, keyed_generator
from icltool.engine.opening import open_session
from icltool.execution.progress import SilentProgress
from icltool.plugin.commands import command_module, stage_model
from icltool.plugin.manager import component
from icltool.testing import check_model, make_examples
from icltool.world.easy_words import ANSWERS, training_words
from tests.world.recipe.easy_episodes import (
    CLASSES,
    EasyLevel,
    EasyPool,
    Turn,
    bounding_box,
    draw_turns,
    installed_pool,
)
from tests.world.recipe.smolvlm import build_processor, save_smolvlm
from tests.world.recipe.train_smolvlm import (
    Curriculum,
    EpisodeEncoder,
    SmolRecipe,
    Trainer,
    train_smolvlm,
)

SMALL = SmolRecipe(batch_size=2, vision_batch=4, vision_steps=2, checkpoint_every=2)


@pytest.fixture(scope="module")
def pool() -> EasyPool:
    return installed_pool()


@pytest.fixture(scope="module")
def model() -> Any:
    """The packaged model, loaded as users load it."""
    return component("models", "tiny-smolvlm", device="cpu")


def split(name: str, lexicon: int) -> list[Example]:
    reader = component("datasets", "easy-vqa", lexicon=lexicon)
    (examples,) = (list(s.examples) for s in reader.read(None, "vqa", Path(), SilentProgress()) if s.name == name)
    return examples


def sampled(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    return [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))[:count]]


def test_an_episode_has_the_tokens_of_the_prompt_and_the_pixels_of_the_processor(
    pool: EasyPool, tmp_path: Path
) -> None:
    """The recipe writes tokens by itself; the model is asked by its chat template and its processor."""
    turns = draw_turns(np.random.default_rng(0), 4, EasyLevel(8, 0.0), pool)
    examples = []
    for number, turn in enumerate(turns):
        path = tmp_path / f"{number}.png"
        Image.fromarray(turn.pixels).save(path)
        examples.append(Example(number, str(path), number, turn.question, turn.word, (turn.word,), turn.question))
    model = component("models", "tiny-smolvlm", device="cpu")
    prompt = model.prompt("vqa", examples[:3], examples[3])
    images = [Image.open(path) for path in prompt.images]
    inputs = model.processor(text=[prompt.text + prompt.target], images=[images], return_tensors="pt")
    batch = EpisodeEncoder(build_processor().tokenizer).batch([turns])  # type: ignore[attr-defined]
    torch.testing.assert_close(batch["input_ids"], inputs["input_ids"])
    torch.testing.assert_close(batch["pixel_values"], inputs["pixel_values"])
    tokens = model.tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    at_words = [i for i, weight in enumerate(batch["weights"][0].tolist()) if weight >= 0.1 - 1e-6]
    assert [tokens[i] for i in at_words] == [turn.word for turn in turns]
    classes = batch["classes"][0].tolist()
    for i, turn in zip(at_words, turns, strict=True):
        assert tokens[i - 1] == ":"
        assert classes[i - 1] == classes[i] == CLASSES.index(turn.answer)
    assert sum(c >= 0 for c in classes) == 2 * len(turns)


def test_words_weigh_most_where_an_earlier_example_taught_them(pool: EasyPool) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        turns = draw_turns(rng, 9, EasyLevel(4, 0.0), pool)
        answers = [turn.answer for turn in turns]
        assert [turn.weight for turn in turns] == [1.0 if a in answers[:i] else 0.1 for i, a in enumerate(answers)]
        for kind, most in (("colour", 4), ("shape", 3)):
            assert len(set(answers) & set(ANSWERS[kind])) <= most
        assert len({(turn.answer, turn.word) for turn in turns}) == len(set(answers)) == len({t.word for t in turns})
        fixed = draw_turns(rng, 3, EasyLevel(1, 1.0), pool)
        assert all(turn.word == training_words()[turn.answer] and turn.weight == 1.0 for turn in fixed)


def test_a_shape_is_moved_whole(pool: EasyPool) -> None:
    rng, places = np.random.default_rng(0), set()
    image = int(np.argmin([np.ptp(box[:2]) for box in map(bounding_box, pool.images[:50])]))
    top, bottom, left, right = bounding_box(pool.images[image])
    for _ in range(50):
        moved = pool.augmented(image, rng)
        box = bounding_box(moved)
        places.add(box)
        assert (box[1] - box[0], box[3] - box[2]) == (bottom - top, right - left)
        colours, counts = np.unique(moved.reshape(-1, 3), axis=0, return_counts=True)
        before = np.unique(pool.images[image].reshape(-1, 3), axis=0, return_counts=True)
        assert np.array_equal(colours, before[0])
        assert np.array_equal(counts, before[1])
    assert len(places) > 40


def test_the_recipe_s_schedules() -> None:
    recipe = SmolRecipe()
    shares = [recipe.fixed(step) for step in (0, 200, 250, 300, 499)]
    assert shares == pytest.approx([0.3, 0.3, 0.15, 0, 0])
    assert [recipe.shots(step) for step in (0, 199, 200)] == [(2, 5), (2, 5), (3, 8)]
    rates = [recipe.rate(step, 1050) for step in (0, 24, 49, 50, 550, 1050)]
    assert rates == pytest.approx([2e-5, 5e-4, 1e-3, 1e-3, 0.51e-3, 2e-5])
    assert recipe.episode_rate(350) == recipe.rate(350, 1000)
    assert recipe.episode_rate(425) == pytest.approx(recipe.rate(425, 1000) / 2)
    assert recipe.episode_rate(500) == 0


def test_the_vision_tower_is_trained_along_at_first_only(pool: EasyPool) -> None:
    trainer = Trainer(dataclasses.replace(SMALL, vision_trained=1), pool, "cpu")
    tower, states = trainer.model.model.vision_model, []
    for _ in range(3):
        states.append({name: tensor.clone() for name, tensor in tower.state_dict().items()})
        trainer.train_step()
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.equal(states[1][name], states[2][name]) for name in states[0])


def test_the_curriculum_waits_for_what_is_learned_but_not_forever() -> None:
    slow, fast = Curriculum(), Curriculum()
    for _ in range(76):
        slow.step(0.6)
        fast.step(0.8)
    assert (slow.values, fast.values) == (2, 4)
    for _ in range(1000):
        fast.step(0.8)
    assert fast.values == 8


def test_a_few_steps_give_the_same_weights_also_when_interrupted(pool: EasyPool, tmp_path: Path) -> None:
    figures: dict[str, list[tuple[int, dict[str, float]]]] = {"whole": [], "resumed": []}

    def run(name: str, stop: int) -> None:
        report = lambda step, _steps, values: figures[name].append((step, values))  # noqa: E731
        train_smolvlm(tmp_path / name, pool, SMALL, report=report, stop=stop)

    run("whole", 4)
    run("resumed", 3)  # the checkpoint is that of step 2
    run("resumed", 4)
    assert figures["whole"] == [*figures["resumed"][:4], *figures["resumed"][-2:]]
    assert [step for step, _ in figures["resumed"]] == [1, 2, 1, 2, 3, 3, 4]
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in figures)
    assert whole.keys() == resumed.keys() == load_file(packaged_weights("tiny-smolvlm") / "model.safetensors").keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    other = dataclasses.replace(SMALL, seed=1)
    assert not Trainer(other, pool, "cpu").resume(tmp_path / "whole.checkpoint"), "the checkpoint of another recipe"


def test_one_batch_is_learned_by_heart(pool: EasyPool) -> None:
    """Of two episodes in the fixed lexicon, in which every word can be known."""
    trainer = Trainer(SMALL, pool, "cpu")
    rng = np.random.default_rng(0)
    episodes: list[list[Turn]] = [draw_turns(rng, 3, EasyLevel(4, 1.0), pool) for _ in range(2)]
    parameters = [*trainer.model.parameters(), *trainer.heads.parameters()]
    history = []
    for _ in range(30):
        losses = trainer.losses(episodes)
        history.append((losses.words.item(), losses.auxiliary.item(), losses.right))
        trainer._update(trainer.optimiser, parameters, losses.words + 0.5 * losses.auxiliary, 1e-3)
    assert history[0][2] < 0.4
    assert history[-1][2] == 1
    assert history[-1][0] < 0.2 * history[0][0]
    assert history[-1][1] < 0.5 * history[0][1]


def test_the_packaged_files_are_those_of_the_recipe(tmp_path: Path, pool: EasyPool) -> None:
    trainer, packaged = Trainer(SMALL, pool, "cpu"), packaged_weights("tiny-smolvlm")
    save_smolvlm(trainer.model, trainer.processor, tmp_path)
    assert {file.name for file in packaged.iterdir()} == {file.name for file in tmp_path.iterdir()}
    for name in ("config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja"):
        ours, theirs = ((folder / name).read_text() for folder in (tmp_path, packaged))
        if name == "config.json":
            ours, theirs = ({**json.loads(text), "transformers_version": ""} for text in (ours, theirs))  # type: ignore[assignment]
        assert ours == theirs, name
    assert sum(file.stat().st_size for file in packaged.iterdir()) < 4_000_000


def test_it_conforms(model: Any, tmp_path: Path) -> None:
    check_model(model, make_examples(tmp_path / "images", 10))


@pytest.mark.parametrize("text", ["What is the third WORD here, 42?", "dax"])
def test_any_text_can_be_read(text: str, model: Any) -> None:
    ids = model.tokenizer(text)["input_ids"]
    assert model.tokenizer.unk_token_id not in ids
    assert "".join(model.tokenizer.decode(ids).split()) == "".join(text.lower().split())


def histograms(examples: Sequence[Example]) -> NDArray[np.float32]:
    """float32 [n, 512]: square roots of the shares of 8 x 8 x 8 colours."""
    unique = {path: _histogram(path) for path in {example.image for example in examples}}
    return np.stack([unique[example.image] for example in examples])


def _histogram(path: str) -> NDArray[np.float32]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(np.int64) // 32
    counts = np.bincount(pixels @ np.array([64, 8, 1]), minlength=512)
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def demonstrations(
    index: Sequence[Example], queries: Sequence[Example], shots: int, covering: bool
) -> list[tuple[Example, ...]]:
    """Demonstrations at random; if `covering`, one of them has the query's answer."""
    chosen = []
    for query in queries:
        rng = keyed_generator(0, "test.random", query.id)
        rows = [index[int(r)] for r in rng.permutation(len(index))[:shots]]
        if covering:
            matches = [example for example in index if example.label == query.label]
            rows[int(rng.integers(shots))] = matches[int(rng.integers(len(matches)))]
        chosen.append(tuple(rows))
    return chosen


def right(model: Any, queries: Sequence[Example], demonstrations: Sequence[Sequence[Example]]) -> float:
    """The share of exact answers, generated through a session."""
    session = open_session("vqa", model, GenerationOptions(5), 64, 2**28)
    requests = [ScoringRequest(q, tuple(d)) for q, d in zip(queries, demonstrations, strict=True)]
    return float(np.mean([a == q.label for a, q in zip(session.answers(requests), queries, strict=True)]))


def measured(model: Any, lexicon: int, count: int, shots: Sequence[int]) -> dict[str, float]:
    """The share of right answers to `count` test questions in this lexicon."""
    index, queries = split("train", lexicon), sampled(split("validation", lexicon), count, 0)
    similarity = histograms(queries) @ histograms(index).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : max(shots)]
    figures = {"zero-shot": right(model, queries, [()] * len(queries))}
    for k in shots:
        nearest = [tuple(index[int(r)] for r in row[:k][::-1]) for row in order]
        figures[f"random {k}"] = right(model, queries, demonstrations(index, queries, k, False))
        figures[f"nearest {k}"] = right(model, queries, nearest)
        figures[f"covering {k}"] = right(model, queries, demonstrations(index, queries, k, True))
    return figures


def test_words_are_learned_from_demonstrations(model: Any) -> None:
    figures = measured(model, 1, 120, [4])
    assert figures["zero-shot"] < 0.15
    assert 0.25 < figures["random 4"] < 0.55
    assert figures["nearest 4"] > 0.78
    assert figures["covering 4"] > 0.88


@pytest.mark.training
@pytest.mark.parametrize("lexicon", [1, 2, 3])
def test_accuracies_on_500_questions(model: Any, lexicon: int, capsys: pytest.CaptureFixture[str]) -> None:
    figures = measured(model, lexicon, 500, [1, 2, 4, 8])
    with capsys.disabled():
        print(f"\nlexicon {lexicon}:", {name: round(value, 3) for name, value in figures.items()})
    assert figures["zero-shot"] < 0.15
    assert figures["random 4"] == pytest.approx(0.40, abs=0.07)
    assert figures["nearest 4"] == pytest.approx(0.88, abs=0.07)
    assert figures["covering 4"] > 0.92
    assert figures["covering 8"] > 0.88


@pytest.fixture
def few_questions(tmp_path: Path) -> Path:
    """A folder like the package's, with the questions on the first 40 images of each split."""
    package = importlib.util.find_spec("easy_vqa")
    assert package is not None
    assert package.submodule_search_locations is not None
    source, root = Path(package.submodule_search_locations[0]) / "data", tmp_path / "few"
    for part in ("train", "test"):
        (root / part / "images").mkdir(parents=True)
        rows = [row for row in json.loads((source / part / "questions.json").read_text()) if row[2] < 40]
        (root / part / "questions.json").write_text(json.dumps(rows))
        for number in {row[2] for row in rows}:
            shutil.copy(source / part / "images" / f"{number}.png", root / part / "images")
    return root


def test_the_profile_runs_from_prepare_to_report(few_questions: Path, tmp_path: Path) -> None:
    """All that it names, on few questions."""

    def stage(name: str, **values: Any) -> Any:
        model = stage_model(name)
        values |= {"workspace": tmp_path / "ws"}
        values |= {"device": "cpu"} if "device" in model.model_fields else {}
        profile = None if name == "report" else "easy-vqa"
        return command_module(name, "run").run(resolve(name, model, values, profile=profile), SilentProgress())

    stage("prepare", root=few_questions)
    stage("embed")
    stage("generate", anchors=8, candidates=6, beam_size=2)
    for learner in ("lever-lm", "pointer"):
        stage("train", learner=learner, options={"epochs": 1}, trainer={"accelerator": "cpu"})
    rows = stage("evaluate", test_size=2).rows()
    assert {row["method"] for row in rows} == {"zero-shot", "random", "i2i", "t2t", "lever-lm", "pointer"}
    assert {row["shots"] for row in rows} == {0, 1, 2, 4, 8}
    assert all(row["queries"] == 2 for row in rows)
    page = stage("report").path.read_text(encoding="utf-8")
    assert "tiny-smolvlm" in page


@pytest.mark.training
def test_the_recipe_learns(pool: EasyPool, tmp_path: Path) -> None:
    """Copying is learned within 100 steps, once the vision tower knows colours."""
    history: list[float] = []
    recipe = SmolRecipe(vision_steps=150)
    train_smolvlm(tmp_path / "model", pool, recipe, report=lambda *a: history.append(a[2]["right"]), stop=100)
    vision, words = history[:150], history[150:]
    assert np.mean(vision[-20:]) > 0.7
    assert np.mean(words[:10]) < 0.3
    assert np.mean(words[-20:]) > 0.45
