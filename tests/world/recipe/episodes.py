"""Training episodes of the tiny LVLM: demonstrations and a query under a lexicon that is drawn anew each time."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from icltool.world.annotations import QUESTIONS
from icltool.world.render import render
from icltool.world.scenes import COLOURS, SHAPES, Lexicon, Scene, all_scenes, draw_lexicon, training_lexicon
from tests.world.recipe.tokenizer import FAKE, IMAGE

IMAGE_SIZE = 32
VQA_INSTRUCTION = "Instruction: provide an answer to the question. Use the image to answer.\n"


def pixels(image: Image.Image, mean: list[float], std: list[float]) -> np.ndarray:
    """float32 [3, 32, 32], as idefics' image processor makes it from the image after a trip through JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    small = Image.open(buffer).convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    array = np.asarray(small, dtype=np.float32) / 255.0
    return np.asarray(((array - np.array(mean, np.float32)) / np.array(std, np.float32)).transpose(2, 0, 1))


class RenderPool:
    """Images of every scene, rendered once; the generator's seed differs from every data set's."""

    def __init__(self, per_scene: int, seed: int, mean: list[float], std: list[float]) -> None:
        self.per_scene = per_scene
        self.values = np.stack(
            [
                np.stack(
                    [
                        pixels(render(s, np.random.default_rng([0xE915, seed, i, k])), mean, std)
                        for k in range(per_scene)
                    ]
                )
                for i, s in enumerate(all_scenes())
            ]
        )  # [scenes, per_scene, 3, H, W]

    def draw(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(self.values[scene.colour * len(SHAPES) + scene.shape, rng.integers(self.per_scene)])


@dataclass(frozen=True)
class Difficulty:
    """Where the curriculum stands: how many values of an attribute an episode holds, how often the lexicon is the fixed one."""

    values: int
    fixed_share: float


@dataclass
class Episode:
    """One sequence: text pieces and what each position has to predict."""

    pieces: list[
        tuple[str, float, tuple[int, int] | None]
    ]  # text, loss weight of its tokens, (colour, shape) for the head
    images: list[np.ndarray]


def draw_episode(
    rng: np.random.Generator, demonstrations: int, task: str, difficulty: Difficulty, pool: RenderPool
) -> Episode:
    """Demonstrations and a query; a label word weighs 1 where an earlier example taught it, 0.1 where it cannot be known."""
    lexicon = training_lexicon() if rng.random() < difficulty.fixed_share else draw_lexicon(rng)
    colours = rng.permutation(len(COLOURS))[: difficulty.values]
    shapes = rng.permutation(len(SHAPES))[: difficulty.values]
    pieces: list[tuple[str, float, tuple[int, int] | None]] = [("<s>", 0.0, None)]
    if task == "vqa":
        pieces.append((VQA_INSTRUCTION, 0.0, None))
    images: list[np.ndarray] = []
    known: set[str] = set(lexicon.colours + lexicon.shapes) if lexicon == training_lexicon() else set()
    for i in range(demonstrations + 1):
        scene = Scene(int(rng.choice(colours)), int(rng.choice(shapes)))
        images.append(pool.draw(scene, rng))
        pieces.append((FAKE + IMAGE + FAKE, 0.0, None))
        pieces += _example(scene, lexicon, task, int(rng.integers(2)), known)
        pieces.append(("\n", 0.1 if i == demonstrations else 0.05, None))
    pieces.append(("</s>", 0.1, None))
    return Episode(pieces, images)


def _example(
    scene: Scene, lexicon: Lexicon, task: str, attribute: int, known: set[str]
) -> list[tuple[str, float, tuple[int, int] | None]]:
    attributes = (scene.colour, scene.shape)
    words = lexicon.words(scene)
    if task == "caption":
        pieces = [("Caption:", 0.0, None), ("a ", 0.05, attributes)]
        labels = list(words)
    else:
        pieces = [(f"Question:{QUESTIONS[attribute]} Short answer", 0.0, None), (":", 0.0, attributes)]
        labels = [words[attribute]]
    for word in labels:
        pieces.append((f"{word} ", 1.0 if word in known else 0.1, attributes))
        known.add(word)
    return pieces
