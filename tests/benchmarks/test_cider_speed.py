"""CIDEr: pycocoevalcap's scorer and ours in turn, on the same tokenized captions, in one process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import pytest

from icltool.metrics.cider import Cider
from icltool.metrics.ptb import shared_tokenizer
from tests.metrics.captions import caption

EXAMPLES = 2_000
ROUNDS = 3


def _timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@pytest.mark.benchmark
@pytest.mark.slow
def test_speed_beside_pycocoevalcap(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints outputs per second of both, medians of rounds in turn. The figures must agree; no time is asserted."""
    from pycocoevalcap.cider.cider import Cider as Official

    rng = random.Random(0)
    references = [[caption(rng) or "A dog" for _ in range(5)] for _ in range(EXAMPLES)]
    predictions = [caption(rng) for _ in range(EXAMPLES)]
    tokenizer = shared_tokenizer()
    known = {i: tokenizer.tokenize(texts) for i, texts in enumerate(references)}
    answers = {i: [text] for i, text in enumerate(tokenizer.tokenize(predictions))}
    metric, fitted = Cider(), Cider()
    fitted.fit(references)
    times: dict[str, list[float]] = {"pycocoevalcap": [], "ours": [], "ours, new outputs in batches of 64": []}
    for turn in range(ROUNDS):
        seconds, expected = _timed(lambda: np.asarray(Official().compute_score(known, answers)[1]))
        times["pycocoevalcap"].append(seconds)
        seconds, scores = _timed(lambda: metric.score(predictions, references))
        times["ours"].append(seconds)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)
        fresh = [f"{text} round {turn} number {i}" for i, text in enumerate(predictions)]
        seconds, _ = _timed(lambda fresh=fresh: _in_batches(fitted, fresh, references))
        times["ours, new outputs in batches of 64"].append(seconds)
    rates = {name: EXAMPLES / sorted(values)[ROUNDS // 2] for name, values in times.items()}
    with capsys.disabled():
        print()
        for name, rate in rates.items():
            print(f"CIDEr, {name}: {rate:,.0f} outputs/s, {rate / rates['pycocoevalcap']:.1f} x pycocoevalcap")


def _in_batches(metric: Cider, predictions: list[str], references: list[list[str]]) -> np.ndarray:
    """As a scorer is asked: outputs never seen before, tokenization included, a batch at a time."""
    return np.concatenate(
        [metric.score(predictions[i : i + 64], references[i : i + 64]) for i in range(0, len(predictions), 64)]
    )
