"""How many prompts a model reads at once: as asked for, found by trying, and fewer when memory runs out."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from icltool.contracts import Prompt, Span
from icltool.errors import ConfigError

BatchSize = int | Literal["auto"]
Item = TypeVar("Item", Prompt, Span)
Result = TypeVar("Result")

#: Largest size that "auto" tries. Beyond some hundred prompts a GPU is busy all the time; a CPU is long before.
LARGEST_ON_GPU, LARGEST_ON_CPU = 512, 64
#: Share of a batch that may be filling, and the share of the full size below which it does not matter: what small batches
#: lose is more.
PADDING, SMALLEST = 0.05, 0.25
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's OutOfMemoryError of any device, Python's MemoryError, and the RuntimeError that torch raises when
    the CPU's memory does not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


class Batches:
    """Runs prompts through a model batch by batch, the longest first, and finds the batch size that fits.

    With a number the size starts there. With "auto" it starts at `start` and doubles after every full batch that fitted,
    up to `largest` and never to a size that failed. Where a batch does not fit in memory the size is halved and the batch
    is tried again; what was computed before is kept. `notes` gets one line about it, kept up to date.
    """

    def __init__(self, size: BatchSize, largest: int = LARGEST_ON_GPU, start: int = 4) -> None:
        if size != "auto" and size < 1:
            raise ConfigError(f"a batch size of {size} is impossible", "give a number from 1 on, or auto")
        self._start = min(start, largest) if size == "auto" else size
        self.size = self._start
        self.notes: list[str] = []
        self._grows = size == "auto"
        self._largest = largest
        self._first_failed: int | None = None

    def start_anew(self) -> None:
        """Grows from the start again, so that the next batches are those of any other start. A size that did not fit is
        remembered."""
        if self._grows:
            self.size = self._start if self._first_failed is None else min(self._start, max(1, self._first_failed // 2))

    def run(
        self,
        items: Sequence[Item],
        compute: Callable[[list[Item], int], Sequence[Result]],
    ) -> list[Result]:
        """`compute(part, size)` of all items, the answers in their order.

        Spans of a batch are filled up to the longest of them, so a batch of spans ends early where filling would be more
        than PADDING of it. Raises ConfigError when a single item does not fit.
        """
        lengths = [_length(item) for item in items]
        order = sorted(range(len(items)), key=lambda i: (-lengths[i][0], -lengths[i][1], i))
        results: dict[int, Result] = {}
        while len(results) < len(order):
            part = order[len(results) : len(results) + self.size]
            if isinstance(items[0], Span):
                part = part[: _dense([lengths[i][0] for i in part])]
            answers = self._tried([items[i] for i in part], compute)
            if answers is None:
                self._halve(len(part), items[part[0]])
                continue
            results.update(zip(part, answers, strict=True))
            if self._grows and len(part) == self.size:
                self._grow()
        return [results[i] for i in range(len(items))]

    def _tried(
        self, part: list[Item], compute: Callable[[list[Item], int], Sequence[Result]]
    ) -> Sequence[Result] | None:
        """The results, or None when memory did not suffice."""
        try:
            return compute(part, self.size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release_memory()  # not in the handler: until it is left, the traceback keeps the failed batch's tensors alive
        return None

    def _grow(self) -> None:
        twice = 2 * self.size
        if twice <= self._largest and (self._first_failed is None or twice < self._first_failed):
            self.size = twice

    def _halve(self, tried: int, longest: Prompt | Span) -> None:
        if tried == 1:
            raise ConfigError(
                f"out of memory with a single prompt of {_described(longest)}",
                "smaller --prefix-cache-mb and --image-cache-mb, fewer --shots, --dtype bfloat16, --quantization 4bit, "
                "--device-map auto or a smaller model take less",
            )
        self._first_failed = min(tried, self._first_failed or tried)
        self.size = tried // 2
        self.notes[:] = [f"{self._first_failed} prompts at once did not fit in memory: batch size now {self.size}"]


def _length(item: Prompt | Span) -> tuple[int, int]:
    """What takes time and memory, the more important first."""
    if isinstance(item, Span):
        return item.end - item.start, item.start
    return len(item.images), len(item.text)


def _described(item: Prompt | Span) -> str:
    if isinstance(item, Span):
        return f"{len(item.tokens.images)} images and {item.end} tokens"
    return f"{len(item.images)} images and {len(item.text)} characters"


def _dense(lengths: Sequence[int]) -> int:
    """How many of these lengths, the longest first, make a batch with little filling: at least SMALLEST of them."""
    filled = 0
    for count, length in enumerate(lengths):
        filled += length
        if count >= SMALLEST * len(lengths) and filled < (1 - PADDING) * (count + 1) * lengths[0]:
            return max(count, 1)
    return len(lengths)


def release_memory() -> None:
    """Gives cached memory back to the GPU, where torch is in use."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
