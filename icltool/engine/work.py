"""The work of a model, compared with the work without sharing; summed over sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """Counts of one or more sessions. Tokens are counted only with a prefix cache: `scored` as if each prompt were computed
    whole, `computed` by the model, `padded` with the padding of the batches. `encoded` images passed through the vision
    encoder, `stored` ones came from the disk."""

    prompts: int = 0
    scored: int = 0
    computed: int = 0
    padded: int = 0
    encoded: int = 0
    stored: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Work) -> Work:
        return Work(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def lines(self) -> list[str]:
        """One line with the counts; none if nothing was done."""
        done = [f"{self.prompts:,} prompts"] if self.prompts else []
        if self.scored:
            share, padding = self.computed / self.scored, 1 - self.computed / max(self.padded, 1)
            done.append(
                f"{self.computed:,} tokens computed of {self.scored:,} scored ({share:.0%}; padding {padding:.1%})"
            )
        if self.encoded or self.stored:
            stored = f", {self.stored:,} from the disk" if self.stored else ""
            done.append(f"{self.encoded:,} images encoded{stored}")
        return [", ".join(done)] if done else []


def total(works: Iterable[Work]) -> Work:
    """The sum of all."""
    return sum(works, Work())
