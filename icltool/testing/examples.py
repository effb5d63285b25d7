"""A few examples with real, tiny images, for tests of everything that reads examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icltool.contracts import Example

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 150, 44),
    "blue": (31, 90, 200),
    "yellow": (235, 205, 30),
}
SHAPES = ("bar", "block", "frame")


def make_examples(
    folder: Path, count: int = 12, *, task: str = "caption", words: Sequence[str] = (), size: int = 32, seed: int = 0
) -> list[Example]:
    """`count` examples whose PNG files of `size` x `size` pixels are written into `folder`.

    Each image shows one of 3 shapes in one of 4 colours on its own noise, so that no two files are equal. Captions are
    two words, a colour's and a shape's; answers of the task "vqa" are two words as well, so that their probability can
    be split. `words` replaces the seven words (four colours, three shapes), for a model with a small vocabulary.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(words) or (*COLOURS, *SHAPES)
    rng = np.random.default_rng([seed, size])
    examples = []
    for i in range(count):
        colour, shape = i % len(COLOURS), (i // len(COLOURS) + i) % len(SHAPES)
        path = folder / f"{task}-{i:04d}.png"
        Image.fromarray(_draw(rng, size, list(COLOURS.values())[colour], SHAPES[shape])).save(path)
        label = f"{names[colour]} {names[len(COLOURS) + shape]}"
        caption = task == "caption"
        examples.append(
            Example(
                id=100 + 7 * i,
                image=str(path.resolve()),
                image_id=1000 + i,
                text=label if caption else "what is it",
                label=label,
                references=(label, f"a {label}") if caption else (label,) * 10,
                question="" if caption else "what is it",
                group=f"{colour}-{shape}",
            )
        )
    return examples


def _draw(rng: np.random.Generator, size: int, colour: tuple[int, int, int], shape: str) -> np.ndarray:
    """uint8 [size, size, 3]."""
    pixels = rng.integers(200, 256, (size, size, 3))
    low, high = size // 4, size - size // 4
    if shape == "bar":
        pixels[size // 2 - size // 8 : size // 2 + size // 8] = colour
    else:
        pixels[low:high, low:high] = colour
    if shape == "frame":
        inner = size // 8
        pixels[low + inner : high - inner, low + inner : high - inner] = 255
    return pixels.astype(np.uint8)
