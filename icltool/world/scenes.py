"""The embedded world: colours, shapes, scenes and the secret lexicon that names them.

A *scene* is one (colour, shape) pair. Scenes are divided into index scenes and held-out scenes, so that no
demonstration shows the query's own pair: a demonstration can teach the query's colour word or its shape word, never both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 150, 44),
    "blue": (31, 90, 200),
    "yellow": (235, 205, 30),
    "purple": (140, 50, 170),
    "orange": (250, 130, 15),
    "cyan": (25, 195, 210),
    "black": (35, 35, 35),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring", "bar", "crescent")

#: Invented words. Every training episode and every data set gives them other meanings.
NONCE_WORDS: tuple[str, ...] = (
    "dax", "blick", "wug", "fep", "zorp", "kiv", "mulp", "tace",
    "norb", "gazz", "hux", "lirp", "pim", "quon", "rell", "skaf",
    "toma", "vint", "yab", "zeb", "brod", "clag", "drin", "florp",
    "gleb", "jusk", "krem", "loov", "modi", "nax", "plon", "snib",
)  # fmt: skip

ATTRIBUTES = ("colour", "shape")


@dataclass(frozen=True)
class Scene:
    """One (colour, shape) pair, by index into COLOURS and SHAPES."""

    colour: int
    shape: int

    @property
    def name(self) -> str:
        return f"{list(COLOURS)[self.colour]}-{SHAPES[self.shape]}"


@dataclass(frozen=True)
class Lexicon:
    """A nonce word for each colour and each shape; all words differ."""

    colours: tuple[str, ...]
    shapes: tuple[str, ...]

    def words(self, scene: Scene) -> tuple[str, str]:
        """(colour word, shape word) of a scene."""
        return self.colours[scene.colour], self.shapes[scene.shape]


def training_lexicon() -> Lexicon:
    """The one lexicon that recurs early in training; no data set uses any of its meanings."""
    n = len(COLOURS)
    return Lexicon(NONCE_WORDS[:n], NONCE_WORDS[n : n + len(SHAPES)])


def draw_lexicon(rng: np.random.Generator) -> Lexicon:
    """A lexicon drawn uniformly: distinct nonce words for all colours and shapes."""
    picked = rng.permutation(len(NONCE_WORDS))[: len(COLOURS) + len(SHAPES)]
    words = tuple(NONCE_WORDS[i] for i in picked)
    return Lexicon(words[: len(COLOURS)], words[len(COLOURS) :])


def dataset_lexicon(seed: int) -> Lexicon:
    """The secret lexicon of a data set: drawn by seed, such that no attribute has the word that it has in
    `training_lexicon`."""
    rng = np.random.default_rng([seed, 0x1EC51C])
    known = training_lexicon()
    while True:
        lexicon = draw_lexicon(rng)
        pairs = zip(lexicon.colours + lexicon.shapes, known.colours + known.shapes, strict=True)
        if all(ours != theirs for ours, theirs in pairs):
            return lexicon


def all_scenes() -> list[Scene]:
    return [Scene(c, s) for c in range(len(COLOURS)) for s in range(len(SHAPES))]


def split_scenes(seed: int) -> tuple[list[Scene], list[Scene]]:
    """(index scenes, held-out scenes): 52 and 12 of the 64.

    The held-out pairs are spread so that every colour and every shape keeps at least five index scenes: no colour and
    no shape is held out more than twice (three times at most for neither).
    """
    rng = np.random.default_rng([seed, 0x5CE4E5])
    n = len(COLOURS)
    rows, columns = rng.permutation(n), rng.permutation(len(SHAPES))
    diagonal = {(int(rows[i]), int(columns[i])) for i in range(n)}
    shifted = {(int(rows[i]), int(columns[(i + 3) % n])) for i in range(0, n, 2)}
    held_out = diagonal | shifted
    scenes = all_scenes()
    index = [s for s in scenes if (s.colour, s.shape) not in held_out]
    return index, [s for s in scenes if (s.colour, s.shape) in held_out]
