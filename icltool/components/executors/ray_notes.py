"""The notes of a run on Ray: deaths, repeated work, workers set aside; at most a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

Key = TypeVar("Key")

#: The largest number of different lines of one kind, and of characters of an error in them.
MOST_LINES, MOST_CHARACTERS = 20, 300


@dataclass
class RunNotes:
    """Notes for the end of the run. Equal ones are counted: thousands of units can fail in the same way."""

    died: Counter[tuple[str, str]] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    other: dict[str, None] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        died = [f"{count_of(n, 'worker')} on {node} died ({why})" for (node, why), n in self.died.items()]
        again = [f"work was repeated {count_of(n, 'time')} after: {error}" for error, n in self.again.items()]
        more = {
            "died": "workers that died",
            "again": "repetitions after other errors",
            "other": "lines",
        }
        ends = {
            kind: [f"... and {self.beyond[kind]:,} more {what}"] * (kind in self.beyond) for kind, what in more.items()
        }
        return [*died, *ends["died"], *again, *ends["again"], *self.other, *ends["other"]]

    def death(self, node: str, why: str) -> None:
        if self._room("died", self.died, (node, why := why[:MOST_CHARACTERS])):
            self.died[node, why] += 1

    def repeat(self, error: str) -> None:
        if self._room("again", self.again, error := error[:MOST_CHARACTERS]):
            self.again[error] += 1

    def line(self, line: str) -> None:
        if self._room("other", self.other, line := line[:MOST_CHARACTERS]):
            self.other[line] = None

    def _room(self, kind: str, counted: Mapping[Key, object], key: Key) -> bool:
        room = key in counted or len(counted) < MOST_LINES
        self.beyond.update([] if room else [kind])
        return room


def count_of(number: int, noun: str) -> str:
    """ "1 worker", "1,200 workers"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
