"""Answers of evaluation: every prompt by itself with its images, and the session with what prompts share, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.contracts import Example, GenerationOptions, ScoringRequest
from icltool.engine.opening import open_session
from tests.benchmarks.engine.data import make_run
from tests.benchmarks.engine.models import adapter

pytestmark = pytest.mark.benchmark

SIZE, IMAGES, QUERIES, SHOTS, BATCH = "60m", 64, 24, 8, 8
OPTIONS = GenerationOptions(max_new_tokens=20, num_beams=3)


def _fixed(queries: Sequence[Example], pool: Sequence[Example]) -> list[ScoringRequest]:
    """One set of demonstrations for all queries."""
    return [ScoringRequest(query, tuple(pool[:SHOTS])) for query in queries]


def _popular(queries: Sequence[Example], pool: Sequence[Example]) -> list[ScoringRequest]:
    """Every query its own demonstrations out of few, the first of them the same for a quarter of the queries."""
    return [
        ScoringRequest(query, (pool[k % 4], *(pool[4 + (k + j) % 12] for j in range(SHOTS - 1))))
        for k, query in enumerate(queries)
    ]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@pytest.mark.parametrize("chosen", [_fixed, _popular])
def test_speed_beside_prompts_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: Any) -> None:
    """Prints queries per second of both and the tokens computed. Answers must be equal; no time is asserted."""
    model: Any = adapter(SIZE, tmp_path / "model", torch.device("cpu"), "float32")
    run = make_run(tmp_path / "images", 1, IMAGES)
    examples = run.anchors[0][1]
    requests = chosen(examples[-QUERIES:], examples[:16])
    prompts = [model.prompt("caption", r.demonstrations, r.query) for r in requests]
    model.generate(prompts[:1], OPTIONS, 1)

    def whole() -> list[str]:
        return [
            a for k in range(0, len(prompts), BATCH) for a in model.generate(prompts[k : k + BATCH], OPTIONS, BATCH)
        ]

    session = open_session("caption", model, OPTIONS, BATCH, 2**30)
    ours, answers = _timed(lambda: [raw for _, raw, _ in session.generations(requests)])
    plain, expected = _timed(whole)
    assert answers == expected
    assert session.cache is not None
    assert session.cache.encoded == len({path for p in prompts for path in p.images})
    assert session.tokens_computed < session.tokens_scored  # type: ignore[operator]
    with capsys.disabled():
        print(
            f"\nanswers after {SHOTS} {chosen.__name__[1:]} demonstrations: {QUERIES / plain:.1f} queries/s by themselves, "
            f"{QUERIES / ours:.1f} sharing, {plain / ours:.1f} x; {session.work[0]}"
        )
