"""Trainings in processes of their own, which are killed on the way or are two of one training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from icltool.contracts import Example, Ticker
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set
from tests.components.learners.synthetic import RecordingProgress


class Ending(RecordingProgress):
    """Ends the training after so many batches, by an exception or a signal."""

    def __init__(self, after: int, number: int | None = None) -> None:
        super().__init__()
        self.after, self.number = after, number

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Ticker]:
        self.tasks.append((description, total - done))
        yield self

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if self.done == self.after:
            if self.number is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), self.number)


class Alarmed(RecordingProgress):
    """Kills the process, wherever it is, after so many seconds of its work from the first batch on."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if self.done == 1:
            signal.setitimer(signal.ITIMER_PROF, self.seconds)  # the time of a loaded machine does not count


def train(folder: Path, examples: list[Example], options: dict[str, Any], alarm: float = 0.0) -> None:
    fine_tuned(fine_tuning_set(examples), folder, Alarmed(alarm) if alarm else None, **options)
