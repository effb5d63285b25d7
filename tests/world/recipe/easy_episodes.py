"""Training episodes of the tiny SmolVLM: easy-VQA's images and questions, answered by a lexicon that is drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from icltool.world.easy_words import ANSWERS, draw_words, kind_of, training_words

#: Answers in the order of the classes that the auxiliary heads predict.
CLASSES = tuple(answer for kind in ("colour", "shape") for answer in ANSWERS[kind])
COLOURS = len(ANSWERS["colour"])


@dataclass(frozen=True)
class PoolQuestion:
    """A question of the training split, with the row of its image."""

    text: str
    answer: str
    image: int


@dataclass(frozen=True)
class EasyLevel:
    """Where the curriculum stands: how many values of a kind an episode holds, how often the lexicon is the fixed one."""

    values: int
    fixed_share: float


@dataclass(frozen=True)
class Turn:
    """One example of an episode. `word` replaces `answer`, its prediction has `weight`, and `pixels` are uint8 [H, W, 3]."""

    question: str
    answer: str
    word: str
    weight: float
    pixels: np.ndarray


class EasyPool:
    """Questions about colours and shapes by answer, and the images in memory."""

    def __init__(self, images: Sequence[Path], questions: Sequence[PoolQuestion]) -> None:
        self.images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in images])
        self._boxes = np.array([bounding_box(image) for image in self.images])
        self.by_answer: dict[str, list[PoolQuestion]] = {answer: [] for answer in CLASSES}
        for question in questions:
            self.by_answer[question.answer].append(question)

    def draw(self, answer: str, rng: np.random.Generator) -> PoolQuestion:
        matches = self.by_answer[answer]
        return matches[int(rng.integers(len(matches)))]

    def augmented(self, image: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3]: the shape moved to any place inside the frame, mirrored left to right half the time."""
        pixels = self.images[image]
        top, bottom, left, right = self._boxes[image]
        down = int(rng.integers(-top, pixels.shape[0] - bottom + 1))
        along = int(rng.integers(-left, pixels.shape[1] - right + 1))
        moved = np.roll(pixels, (down, along), axis=(0, 1))
        return moved[:, ::-1] if rng.random() < 0.5 else moved


def bounding_box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of what is not background, which most corners show; ends are exclusive."""
    corners = [tuple(pixels[y, x].tolist()) for y in (0, -1) for x in (0, -1)]
    background = max(corners, key=corners.count)
    rows, columns = np.nonzero((pixels != np.array(background, np.uint8)).any(-1))
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


def installed_pool() -> EasyPool:
    """The training split of the installed package, read as any data set is."""
    from icltool.components.datasets.easy_vqa import EasyVqaOptions, EasyVqaReader
    from icltool.execution.progress import for_terminal

    progress = for_terminal(quiet=True, verbose=False)
    for split in EasyVqaReader(EasyVqaOptions()).read(None, "vqa", Path(), progress):
        if split.name == "train":
            examples = list(split.examples)
            images = list(dict.fromkeys(example.image for example in examples))
            rows = {image: row for row, image in enumerate(images)}
            return EasyPool(
                list(map(Path, images)), [PoolQuestion(e.question, e.label, rows[e.image]) for e in examples]
            )
    raise AssertionError("the reader has a training split")


def draw_turns(rng: np.random.Generator, count: int, level: EasyLevel, pool: EasyPool) -> list[Turn]:
    """An episode of `count` examples, each a query to those before it.

    A word weighs 1 where an earlier example taught it (with the fixed lexicon always), 0.1 where it cannot be known.
    """
    fixed = rng.random() < level.fixed_share
    words = training_words() if fixed else draw_words(rng)
    values = int(rng.integers((level.values + 1) // 2, level.values + 1))
    allowed = {kind: rng.permutation(ANSWERS[kind])[:values].tolist() for kind in ("colour", "shape")}
    known = set(CLASSES) if fixed else set()
    turns = []
    for _ in range(count):
        answers = allowed["colour" if rng.random() < 0.5 else "shape"]
        answer = answers[int(rng.integers(len(answers)))]
        question = pool.draw(answer, rng)
        pixels = pool.augmented(question.image, rng)
        turns.append(Turn(question.text, answer, words[answer], 1.0 if answer in known else 0.1, pixels))
        known.add(answer)
    return turns


def class_range(answer: str) -> tuple[int, int]:
    """The classes among which the head of the vision tower decides: those of the answer's kind."""
    return (0, COLOURS) if kind_of(answer) == "colour" else (COLOURS, len(CLASSES))
