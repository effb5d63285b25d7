"""Wrong answers that stand beside the right one: drawn from what is said of other images."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.contracts import keyed_generator
from icltool.contracts.arrays import plain_text


class Pool:
    """Texts with the images that they are about, from which each query draws by its id."""

    def __init__(self, purpose: str, texts: Sequence[tuple[str, str]]) -> None:
        """`texts` are (image, text); `purpose` keeps the draws apart from others of the same id."""
        self._purpose = purpose
        self._texts = [(image, text, plain_text(text)) for image, text in texts]

    def choices(self, identifier: int, image: str, references: Sequence[str], count: int) -> tuple[str, ...]:
        """The first reference and `count` distractors (fewer where the pool has no more), in an order that is drawn as well.

        Distractors are about other images; none reads as a reference or another of them, case and punctuation aside.
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
