"""Indexes of nearest-neighbour search against the exact search: recall, time to build, queries per second, memory.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.nearest_indexes [ROWS] [DIM] [QUERIES] [KIND …]

makes ROWS vectors (default 200,000 x 512; 1,000 queries), searches 64 neighbours exactly and through each index, and
prints a line for each choice of options. Times are of the processor, since other work may share the machine. "other
kind" are queries from another region of the space, as images' are when texts are searched. A small edition is in the
test suite (test_nearest_indexes.py).

The vectors are made like those of an image encoder: they lie in a cone (a common mean), in groups of groups, and most of
their variance is in few directions (the i-th eigenvalue falls as 1 / i). Vectors with equal variance in all directions
would be harder than any encoder's: there the nearest rows are hardly nearer than all others.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icltool.components.retrievers.approximate import EXACT, IndexOptions
from icltool.components.retrievers.nearest import NearestRows
from icltool.contracts import FloatArray, IntArray

NEIGHBOURS = 64
#: What is measured of each kind, defaults first.
CHOICES: dict[str, tuple[IndexOptions, ...]] = {
    "ivf": tuple(IndexOptions(index="ivf", probes=probes) for probes in (32, 8, 16, 64, 128)),
    "ivf-pq": tuple(IndexOptions(index="ivf-pq", probes=probes) for probes in (32, 8, 16, 64, 128)),
    "hnsw": tuple(IndexOptions(index="hnsw", ef=ef) for ef in (128, 256, 512)),
}


@dataclass(frozen=True)
class Figures:
    """Of one index and its options: `recall` by number of neighbours and kind of query, `rate` queries per second of
    processor time and `speed` times the exact search's, `build` seconds of it, `bytes_per_row` resident memory that
    building added."""

    options: IndexOptions
    recall: dict[str, float]
    rate: float
    speed: float
    build: float
    bytes_per_row: float


def made_vectors(count: int, dim: int, queries: int, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(rows float32 [count, dim], queries like them, queries of another kind), as the module says."""
    rng = np.random.default_rng(seed)
    scale = (1.0 / np.sqrt(np.arange(1, dim + 1))).astype(np.float32)
    broad = rng.standard_normal((max(4, count // 5000), dim), dtype=np.float32) * scale
    fine = broad[rng.integers(0, len(broad), max(8, count // 100))]
    fine = fine + rng.standard_normal(fine.shape, dtype=np.float32) * scale
    mean = rng.standard_normal(dim, dtype=np.float32) * np.float32(np.linalg.norm(scale) / np.sqrt(dim))
    shift = rng.standard_normal(dim, dtype=np.float32) * np.float32(np.linalg.norm(scale) / np.sqrt(dim))

    def draw(number: int) -> FloatArray:
        vectors = np.empty((number, dim), dtype=np.float32)
        for start in range(0, number, 8192):
            part = vectors[start : start + 8192]
            part[:] = fine[rng.integers(0, len(fine), len(part))] + mean
            part += rng.standard_normal(part.shape, dtype=np.float32) * scale
        return vectors

    return draw(count), draw(queries), draw(queries) + shift


def resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # what is free goes back to the system (glibc)
            ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return 1024 * int(line.split()[1])


def recall(rows: IntArray, true: IntArray, count: int) -> float:
    """The mean share of the `count` true neighbours that are among the `count` found."""
    shares = [len(np.intersect1d(f, t)) / count for f, t in zip(rows[:, :count], true[:, :count], strict=True)]
    return float(np.mean(shares))


def timed_search(search: NearestRows, queries: FloatArray, count: int) -> tuple[IntArray, float]:
    """(rows, seconds of processor time)."""
    none = np.empty(0, dtype=np.int64)
    began = time.process_time()
    rows = search.search(queries, count, lambda _: none)
    return rows, time.process_time() - began


def compare(
    rows: int, dim: int, queries: int, kinds: Sequence[str] = tuple(CHOICES), neighbours: int = NEIGHBOURS
) -> Iterator[Figures]:
    """Exact search first, then each kind with each of its options. Recall is against the exact search."""
    base, alike, other = made_vectors(rows, dim, queries)
    exact = NearestRows(base)
    timed_search(exact, alike[:1], 1)
    true, seconds = timed_search(exact, alike, neighbours)
    true_other, _ = timed_search(exact, other, neighbours)
    yield Figures(EXACT, {}, queries / seconds, 1.0, 0.0, 0.0)
    for kind in kinds:
        before = resident()
        for number, options in enumerate(CHOICES[kind]):
            search = NearestRows(base, options)
            if number == 0:
                build = timed_search(search, alike[:1], 1)[1]
                held = (resident() - before) / rows
            nearest, took = timed_search(search, alike, neighbours)
            recalls = {f"@{k}": recall(nearest, true, k) for k in (10, neighbours)}
            recalls[f"@{neighbours} other kind"] = recall(
                timed_search(search, other, neighbours)[0], true_other, neighbours
            )
            yield Figures(options, recalls, queries / took, seconds / took, build, held)
        exact._known.indexes.clear()  # so that one index does not stand in another's memory


def line(figures: Figures) -> str:
    options = figures.options
    knob = {"exact": "", "hnsw": f" ef={options.ef}"}.get(options.index, f" probes={options.probes}")
    if options == EXACT:
        return f"exact: {figures.rate:,.0f} queries/s"
    recalls = ", ".join(f"{name} {value:.3f}" for name, value in figures.recall.items())
    return (
        f"{options.index}{knob}: recall {recalls}; {figures.rate:,.0f} queries/s, {figures.speed:.1f} x exact; "
        f"built in {figures.build:.1f} s, {figures.bytes_per_row:.0f} bytes per row"
    )


def main() -> None:
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    kinds = [a for a in sys.argv[1:] if not a.isdigit()] or list(CHOICES)
    rows, dim, queries = (*numbers, *(200_000, 512, 1_000)[len(numbers) :])
    print(f"{rows:,} rows x {dim}, {queries:,} queries, {NEIGHBOURS} neighbours", flush=True)
    for figures in compare(rows, dim, queries, kinds):
        print(line(figures), flush=True)


if __name__ == "__main__":
    main()
