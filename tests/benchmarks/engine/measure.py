"""Time, memory, and what the machine can do at most."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")
#: Matrix products that are timed: as many rows as a batch has tokens, from hidden to intermediate width.
ROWS = 2560
#: Of one measurement of the machine's rate.
RATE_SECONDS = 2.0


def timed(device: torch.device, work: Callable[[], Result]) -> tuple[Result, float, float]:
    """(what `work` gives, seconds until the device has done it, seconds of this process on all cores)."""
    _wait(device)
    began, cpu_began = time.perf_counter(), time.process_time()
    result = work()
    _wait(device)
    return result, time.perf_counter() - began, time.process_time() - cpu_began


def matrix_rate(device: torch.device, dtype: torch.dtype, hidden: int, intermediate: int) -> float:
    """Floating-point operations per second of the best of the matrix products of the model's sizes that fit into RATE_SECONDS.

    The best, because other processes only ever make one slower. On a GPU several are queued at a time, so that launching
    them does not count.
    """
    rows = ROWS if device.type == "cpu" else 4 * ROWS
    repeats = 1 if device.type == "cpu" else 10
    left = torch.randn(rows, hidden, device=device).to(dtype)
    right = torch.randn(intermediate, hidden, device=device).to(dtype)

    def products() -> None:
        for _ in range(repeats):
            torch.nn.functional.linear(left, right)

    products()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < RATE_SECONDS or best == float("inf"):
        best = min(best, timed(device, products)[1] / repeats)
    return 2 * rows * hidden * intermediate / best


class PeakMemory:
    """The most memory in use between `start` and `stop`, in bytes: of the GPU what torch allocated, of the CPU the
    process's resident memory.

    Linux lets a process reset its own peak; where that fails, `stop` gives the peak since the process began.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    def stop(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        status = Path("/proc/self/status")
        if status.is_file():
            lines = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            if lines:
                return int(lines[0][1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
