"""The batch size of a model: as requested, or found by trial, and reduced when memory runs out."""

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

#: Largest size that "auto" tries. A few hundred prompts keep a GPU busy, and far fewer a CPU.
LARGEST_ON_GPU, LARGEST_ON_CPU = 512, 64
#: Largest share of padding in a batch. A batch below the share SMALLEST of the full size may have more: small batches cost
#: more than padding.
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

    A number is the initial size. With "auto" the size starts at `start` and doubles after every full batch that fits, up to
    `largest`, but never to a size that failed. If a batch does not fit in memory, the size is halved and the batch repeated;
    earlier results are reused. `notes` has one line about it.
    """

    def __init__(self, size: BatchSize, largest: int = LARGEST_ON_GPU, start: int = 4) -> None:
        if size != "auto" and size < 1:
            raise ConfigError(
                f"batch_size must be a positive integer, got {size}", "for example batch_size=64, or auto"
            )
        self._start = min(start, largest) if size == "auto" else size
        self.size = self._start
        self.notes: list[str] = []
        self._grows = size == "auto"
        self._largest = largest
        self._first_failed: int | None = None

    def reset(self) -> None:
        """Resets the size of "auto", so that the next batches do not depend on earlier ones. A size that did not fit stays
        excluded."""
        if self._grows:
            self.size = self._start if self._first_failed is None else min(self._start, max(1, self._first_failed // 2))

    def run(
        self,
        items: Sequence[Item],
        compute: Callable[[list[Item], int], Sequence[Result]],
    ) -> list[Result]:
        """The results of `compute(part, size)` for all items, in their order.

        Spans are padded to the longest of their batch, so a batch of spans ends early if more than PADDING of it would be
        padding. Raises ConfigError if a single item does not fit.
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
    """How many of these lengths, the longest first, form a batch with little padding: at least the share SMALLEST."""
    filled = 0
    for count, length in enumerate(lengths):
        filled += length
        if count >= SMALLEST * len(lengths) and filled < (1 - PADDING) * (count + 1) * lengths[0]:
            return max(count, 1)
    return len(lengths)


def release_memory() -> None:
    """Releases cached GPU memory, if torch is in use."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
