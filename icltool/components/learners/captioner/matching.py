"""Image-text matching as a second task: does this caption, in this style, belong to the image?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icltool.components.learners.captioner.items import Items
from icltool.contracts import Example, Prompt, SupportsFineTuning, keyed_generator
from icltool.errors import DataError

WITH_STYLE = ' does the image describe " {caption} " in personality {style}?'
WITHOUT_STYLE = ' does the image describe " {caption} "?'
YES, NO, OTHER_STYLE = " yes", " no", " personality"
_TRIES = 64


class Matching:
    """Generates questions: half with the item's own caption and style (` yes`), a quarter with a caption of another image
    (` no`), a quarter with another style (` personality`; ` no` if the data have fewer than two styles).

    The question on an item depends on the seed, the epoch, its example and its caption's number. Raises DataError if all
    examples have the same image.
    """

    def __init__(self, items: Items, prompt: str | None, seed: int) -> None:
        self.items, self.seed = items, seed
        self.prompt = prompt or (WITH_STYLE if items.styles else WITHOUT_STYLE)

    def prompts(
        self, model: SupportsFineTuning, positions: Sequence[int], examples: Sequence[Example], epoch: int
    ) -> list[Prompt]:
        """One prompt for each item; `examples` are the items', with their captions as labels."""
        return [
            model.plain_prompt(text, example.image, answer)
            for example, (text, answer) in (
                (example, self.question(position, example, epoch))
                for position, example in zip(positions, examples, strict=True)
            )
        ]

    def question(self, position: int, example: Example, epoch: int) -> tuple[str, str]:
        """(text, answer) for an item."""
        caption, style, answer = example.label, example.style, YES
        number = int(self.items.caption[position])
        generator = keyed_generator(self.seed, f"captioner.match.{epoch}.{number}", example.id)
        kind = generator.random()
        others = [other for other in self.items.styles if other != style]
        if kind >= 0.75 and others and style:
            style, answer = others[int(generator.integers(len(others)))], OTHER_STYLE
        elif kind >= 0.5:
            caption, answer = self._other_caption(example, generator), NO
        return self.prompt.format(caption=caption, style=style), answer

    def _other_caption(self, example: Example, generator: np.random.Generator) -> str:
        for place in generator.integers(len(self.items), size=_TRIES).tolist():
            if self.items.images[int(self.items.place[place])] == example.image:
                continue
            (other,) = self.items.examples([place])
            if other.image_id != example.image_id:
                return other.label
        raise DataError(
            f"example {example.id}: there is no caption of another image to ask about",
            "itm needs examples of several images: add some, or use --option itm=false",
        )
