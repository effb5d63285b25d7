"""Made-up data of COCO's proportions: captions of its lengths, images of its size, pools drawn as often as there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from icltool.contracts import Example

#: Words per caption of COCO: mean and standard deviation.
WORDS_MEAN, WORDS_SD, WORDS_LEAST = 10.5, 2.5, 6
#: Words of the lexicon, the most frequent first; so many of them are one token, the others two.
LEXICON, WHOLE = 3000, 300
#: How often a word comes up by its rank: Zipf's law. COCO's captions repeat few words, and a model that saw the words
#: before guesses better than frequencies alone do, so the exponent is above the usual 1.
EXPONENT = 1.4
#: Images (width, height) as most of COCO's are.
IMAGE_SIZES = ((640, 480), (640, 427), (480, 640), (640, 426), (500, 375))
#: 5,000 anchors x 64 candidates over COCO's 118,287 training images: how often an image comes up in a full run.
USES = 5000 * 64 / 118_287


@dataclass(frozen=True)
class Lexicon:
    """`words` of six letters, the most frequent first, their `shares` (sum 1), and the `syllables` they are made of."""

    words: tuple[str, ...]
    shares: np.ndarray
    syllables: tuple[str, ...]


def lexicon() -> Lexicon:
    """The same words every time. Every word is two syllables of three letters, so that a tokenizer that takes the longest
    piece first never goes astray."""
    syllables = tuple(a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in "klmnrst")
    pairs = np.random.default_rng(11).permutation(len(syllables) ** 2)[:LEXICON]
    words = tuple(syllables[p // len(syllables)] + syllables[p % len(syllables)] for p in pairs)
    shares = 1.0 / np.arange(1, LEXICON + 1) ** EXPONENT
    return Lexicon(words, shares / shares.sum(), syllables)


@dataclass(frozen=True)
class Run:
    """Anchors, each with its pool of candidates."""

    anchors: tuple[tuple[Example, tuple[Example, ...]], ...]

    @property
    def images(self) -> list[str]:
        """Every image that some prompt shows, once."""
        return list(dict.fromkeys(e.image for query, pool in self.anchors for e in (query, *pool)))

    def first(self, count: int) -> Run:
        return Run(self.anchors[:count])


def index_size(anchors: int, candidates: int) -> int:
    """Images of an index set that a run of so few anchors uses as often as a run of 5,000 uses COCO's: 2.7 times.

    How much an image cache saves depends on that ratio alone; with fewer than three anchors it cannot be reached, because
    a pool holds no image twice.
    """
    return max(candidates + 1, round(anchors * candidates / USES))


def make_run(folder: Path, anchors: int, candidates: int, index: int | None = None, seed: int = 0) -> Run:
    """Writes the images as JPEG files into `folder` and draws anchors and pools."""
    words = lexicon()
    count = index_size(anchors, candidates) if index is None else index
    if count <= candidates or count < anchors:
        raise SystemExit(
            f"an index set of {count} images is too small for {anchors} anchors of {candidates} candidates"
        )
    folder.mkdir(parents=True, exist_ok=True)
    examples = [_example(folder, words, seed, number) for number in range(count)]
    rng = np.random.default_rng([0xD8A, seed])
    chosen = []
    for place in rng.permutation(count)[:anchors]:
        others = [k for k in rng.permutation(count) if k != place][:candidates]
        chosen.append((examples[place], tuple(examples[k] for k in others)))
    return Run(tuple(chosen))


def caption(words: Lexicon, rng: np.random.Generator) -> str:
    length = max(WORDS_LEAST, round(rng.normal(WORDS_MEAN, WORDS_SD)))
    return " ".join(words.words[k] for k in rng.choice(LEXICON, length, p=words.shares)) + "."


def _example(folder: Path, words: Lexicon, seed: int, number: int) -> Example:
    rng = np.random.default_rng([0xE6, seed, number])
    text = caption(words, rng)
    path = folder / f"{number:06d}.jpg"
    _image(rng, IMAGE_SIZES[number % len(IMAGE_SIZES)]).save(path, quality=90)
    return Example(number, str(path), number, text, text, (text,))


def _image(rng: np.random.Generator, size: Sequence[int]) -> Image.Image:
    """Smooth random colours; a little noise makes the file about as large as a photograph's."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((size[0], size[1]), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = smooth + rng.integers(-12, 13, smooth.shape, dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
