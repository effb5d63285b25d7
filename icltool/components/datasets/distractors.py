"""Distractors, the wrong choices beside the right answer: drawn from the texts of other images."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.contracts import keyed_generator
from icltool.contracts.arrays import plain_text


class Pool:
    """Texts with their images, from which each query draws distractors by its id."""

    def __init__(self, purpose: str, texts: Sequence[tuple[str, str]]) -> None:
        """`texts` are pairs (image, text); `purpose` makes the draws independent of other draws for the same id."""
        self._purpose = purpose
        self._texts = [(image, text, plain_text(text)) for image, text in texts]

    def choices(self, identifier: int, image: str, references: Sequence[str], count: int) -> tuple[str, ...]:
        """The first reference and `count` distractors (fewer if the pool has no more), in random order.

        Distractors are about other images; none equals a reference or another distractor, ignoring case and punctuation.
        """
        generator = keyed_generator(0, self._purpose, identifier)
        excluded = {plain_text(text) for text in references}
        chosen = [references[0]]
        size = len(self._texts)
        some = generator.choice(size, min(size, 4 * count), replace=False)
        for rows in (some, generator.permutation(size) if len(some) < size else ()):
            for row in rows:
                other, text, plain = self._texts[int(row)]
                if len(chosen) > count:
                    break
                if other != image and plain not in excluded:
                    excluded.add(plain)
                    chosen.append(text)
            if len(chosen) > count:
                break
        return tuple(chosen[place] for place in generator.permutation(len(chosen)))
