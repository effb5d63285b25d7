"""Ctrl-C and SIGTERM in a training that saves its steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TypeAlias

from lightning.pytorch import Trainer

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Argument and result of `signal.signal`.
_Handler: TypeAlias = "signal._HANDLER"


class StopRequest:
    """Ctrl-C and SIGTERM while training: the first requests a stop after the current step, the second stops at once.

    `ignore` restores Lightning's own handlers.
    """

    def __init__(self) -> None:
        self._requested, self._now = False, False
        self._before: dict[int, _Handler] = {}

    def listen(self) -> None:
        """Installs the handlers; has no effect outside the main thread."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Restores the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested or self._now:
            raise KeyboardInterrupt
        self._requested = True

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context in which a signal stops the training immediately."""
        if self._requested:
            raise KeyboardInterrupt
        self._now = True
        try:
            yield
        finally:
            self._now = False

    def requested(self, trainer: Trainer) -> bool:
        """Whether any process of the training received a request to stop."""
        if trainer.world_size == 1:
            return self._requested
        return bool(trainer.strategy.reduce_boolean_decision(self._requested, all=False))
