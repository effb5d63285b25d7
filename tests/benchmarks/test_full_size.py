"""Samplers and similarity retrieval at the size of the real data sets, on made-up vectors.

    OMP_NUM_THREADS=2 python -m tests.benchmarks.test_full_size [PART …]

runs VQAv2's index set (443,757 rows x 768, 5,000 anchors, 64 candidates) and COCO's (118,287 rows, 5,000 queries, 8
demonstrations), all vectors different, and VQAv2's with its repeated images and questions; it takes some minutes and
4 GB. PART is one of image-sim, mix, image-sim-vqa, mix-vqa and i2i; without any, all are run. A small edition is in the
test suite (ICLTOOL_FULL_SIZE=1 makes it the full one).
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from icltool.components.retrievers.approximate import IndexOptions
from icltool.components.retrievers.nearest import normalised
from icltool.components.retrievers.similarity import SimilarityOptions, SimilarityRetriever
from icltool.components.samplers.image_sim import ImageSimilaritySampler
from icltool.components.samplers.mix import MixOptions, MixSampler
from icltool.contracts import FloatArray, IndexSet, IntArray, QuerySet

QUESTIONS_PER_IMAGE = 443_757 / 82_783
DIFFERENT_QUESTIONS = 152_050 / 443_757


@dataclass(frozen=True)
class Size:
    vqa: int
    coco: int
    queries: int
    dim: int
    chunk: int


FULL = Size(vqa=443_757, coco=118_287, queries=5_000, dim=768, chunk=256)
SMALL = Size(vqa=20_000, coco=10_000, queries=300, dim=64, chunk=100)


def vectors(rng: np.random.Generator, count: int, dim: int) -> FloatArray:
    array = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, 8192):
        rng.standard_normal(out=array[start : start + 8192], dtype=np.float32)
    return array


def repeated(distinct: FloatArray, codes: IntArray) -> FloatArray:
    """`distinct[codes]` without a second array of that size beside it."""
    array = np.empty((len(codes), distinct.shape[1]), dtype=np.float32)
    np.take(distinct, codes, axis=0, out=array, mode="clip")  # the default mode would buffer
    return array


def index_set(size: Size, like_vqa: bool, kinds: tuple[str, ...]) -> IndexSet:
    """`size.vqa` questions, about five to an image; vectors all different, or equal where image or question are."""
    rng = np.random.default_rng(1)
    count = size.vqa
    image_ids = np.sort(rng.integers(0, round(count / QUESTIONS_PER_IMAGE), count))
    columns: dict[str, FloatArray] = {}
    for kind in kinds:
        if not like_vqa:
            columns[kind] = vectors(rng, count, size.dim)
        elif kind == "image":
            columns[kind] = repeated(vectors(rng, int(image_ids[-1]) + 1, size.dim), image_ids)
        else:
            different = round(count * DIFFERENT_QUESTIONS)
            columns[kind] = repeated(vectors(rng, different, size.dim), rng.integers(0, different, count))
    return IndexSet(np.arange(count), image_ids, np.full(count, -1), **columns)


def anchors(index: IndexSet, rows: IntArray) -> QuerySet:
    columns = {k: v[rows] for k in ("image", "text") if (v := getattr(index, k)) is not None}
    return QuerySet(index.ids[rows], index.image_ids[rows], index.groups[rows], **columns, same_split=True)


def timed(name: str, work: Callable[[], IntArray]) -> IntArray:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: {wall:.1f} s, {processor:.1f} s of processor time; the process so far: {peak:.2f} GiB", flush=True)
    return result


def sampling(size: Size, kind: str, like_vqa: bool) -> tuple[IndexSet, IntArray, IntArray]:
    """(index set, anchors' rows, pools), drawn in chunks as `icltool generate` draws them."""
    sampler = MixSampler(MixOptions()) if kind == "mix" else ImageSimilaritySampler(IndexOptions())
    index = index_set(size, like_vqa, ("image", "text") if kind == "mix" else ("image",))
    rows = np.random.default_rng(2).permutation(size.vqa)[: size.queries]
    parts = [rows[start : start + size.chunk] for start in range(0, len(rows), size.chunk)]

    def work() -> IntArray:
        return np.concatenate([sampler.sample(index, anchors(index, part), 64, 0) for part in parts])

    what = "as repeated as VQAv2" if like_vqa else "all different"
    name = f"{kind}, 64 candidates, {size.queries:,} anchors, {size.vqa:,} rows x {size.dim}, {what}"
    return index, rows, timed(name, work)


def retrieval(size: Size) -> tuple[IndexSet, QuerySet, IntArray]:
    rng = np.random.default_rng(3)
    index = IndexSet(
        np.arange(size.coco),
        np.arange(size.coco),
        np.full(size.coco, -1),
        vectors(rng, size.coco, size.dim),
    )
    ids = np.arange(size.queries) + size.coco
    queries = QuerySet(ids, ids, np.full(size.queries, -1), vectors(rng, size.queries, size.dim))
    retriever = SimilarityRetriever(SimilarityOptions())
    name = f"i2i, 8 shots, {size.queries:,} queries, {size.coco:,} rows x {size.dim}"
    return index, queries, timed(name, lambda: retriever.retrieve(index, queries, 8, 0))


def check(base: FloatArray, query: FloatArray, leaking: IntArray, rows: IntArray) -> None:
    """The rows are those that brute force finds."""
    unit = normalised(query[None])[0].astype(np.float64)
    scores = np.concatenate(
        [normalised(base[s : s + 8192]).astype(np.float64) @ unit for s in range(0, len(base), 8192)]
    )
    scores[leaking] = -np.inf
    expected = np.sort(scores)[::-1][: len(rows)]
    np.testing.assert_allclose(scores[rows], expected, rtol=0, atol=1e-14)
    assert len(np.unique(rows)) == len(rows)


PARTS = ("image-sim", "mix", "image-sim-vqa", "mix-vqa", "i2i")


def run(size: Size, parts: Sequence[str] = PARTS) -> None:
    for part in parts:
        run_part(size, part)


def run_part(size: Size, part: str) -> None:
    """Prints the figures of one part, and compares the first three answers with brute force."""
    if part == "i2i":
        index, queries, chosen = retrieval(size)
    else:
        kind = part.removesuffix("-vqa")
        index, rows, chosen = sampling(size, kind, kind != part)
        queries, chosen = anchors(index, rows[:3]), chosen[:3, : 16 if kind == "mix" else 64]
    assert index.image is not None
    assert queries.image is not None
    for q in range(3):
        check(index.image, queries.image[q], index.leaking_rows(queries, q), chosen[q])


@pytest.mark.benchmark
def test_full_size(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints times and memory; the rows must be right, no time is asserted."""
    with capsys.disabled():
        print()
        run(FULL if os.environ.get("ICLTOOL_FULL_SIZE") else SMALL)


if __name__ == "__main__":
    run(FULL, sys.argv[1:] or PARTS)
