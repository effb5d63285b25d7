"""CIDEr: pycocoevalcap's scorer and ours in turn, on the same tokenized captions, in one process; and the scorer of
`generate` beside the published way of calling it."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from icltool.components.metrics.cider import Cider
from icltool.components.metrics.ptb import PTBTokenizer, shared_tokenizer
from icltool.components.scorers.cider import CiderScorer
from icltool.contracts import Example, FloatArray, ScoringRequest, TargetScore
from tests.components.metrics.captions import caption
from tests.components.metrics.official import FixedStatistics, let_it_find_java, published_tokens

pytestmark = pytest.mark.benchmark

EXAMPLES = 2_000
ROUNDS = 3
#: The scorer's index set and outputs; a call is a query's candidates; so many calls are made the published way too.
INDEX, OUTPUTS, CALL, PUBLISHED_CALLS = 5_000, 5_000, 64, 20


def _timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


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


class _Answering:
    """A session that has every answer ready."""

    task = "caption"

    def __init__(self, corpus: Sequence[tuple[str, ...]], outputs: Sequence[str]) -> None:
        self.corpus = corpus
        self.outputs = iter(outputs)

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        return list(islice(self.outputs, len(requests)))

    def reference_corpus(self) -> Iterable[tuple[str, ...]]:
        return iter(self.corpus)

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        raise NotImplementedError

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        raise NotImplementedError


@pytest.fixture
def one_core() -> Iterator[None]:
    """This thread and the processes that it starts share one core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_core")
def test_scorer_beside_a_java_start_and_an_annotation_parse_per_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CIDEr scorer as `generate` asks it, 64 candidates of a query a call, every output a new one; and the published
    way: annotations read, Java started twice and references counted in each call. It gets its corpus statistics for
    nothing. The values must agree; no time is asserted."""
    rng = random.Random(0)
    corpus = [tuple(f"A {caption(rng)}" for _ in range(5)) for _ in range(INDEX)]
    outputs = [f"A {caption(rng)} number {i}" for i in range(OUTPUTS)]
    queries = [Example(q, "", q, texts[0], texts[0], texts) for q, texts in enumerate(corpus)]
    requests = [ScoringRequest(queries[i // CALL], ()) for i in range(OUTPUTS)]
    tokenizer = PTBTokenizer()
    tokenizer.tokenize(["A dog"])
    scorer, session = CiderScorer(Cider(tokenizer)), _Answering(corpus, outputs)
    start = time.perf_counter()
    scorer.evaluate(session, [])
    fitting, values = time.perf_counter() - start, []
    for first in range(0, OUTPUTS, CALL):
        values.append(scorer.evaluate(session, requests[first : first + CALL]).values)
    seconds = time.perf_counter() - start
    tokenizer.close()

    let_it_find_java(monkeypatch)
    statistics = FixedStatistics(published_tokens(corpus))
    file = tmp_path / "captions.json"
    rows = [
        {"image_id": q, "id": 5 * q + i, "caption": t} for q, texts in enumerate(corpus) for i, t in enumerate(texts)
    ]
    file.write_text(json.dumps({"annotations": rows}))
    start = time.perf_counter()
    for call in range(PUBLISHED_CALLS):
        listed: dict[int, list[str]] = {}
        for row in json.loads(file.read_text())["annotations"]:
            listed.setdefault(row["image_id"], []).append(row["caption"])
        part = range(call * CALL, (call + 1) * CALL)
        answers = published_tokens([[outputs[i]] for i in part])
        references = published_tokens([listed[requests[i].query.image_id] for i in part])
        expected = statistics.score([answer for (answer,) in answers], references)
        np.testing.assert_allclose(values[call], expected, rtol=0, atol=1e-9)
    rate, published = OUTPUTS / (seconds - fitting), PUBLISHED_CALLS * CALL / (time.perf_counter() - start)
    with capsys.disabled():
        print(
            f"\nCIDEr scorer on one core, calls of {CALL}: {rate:,.0f} outputs/s ({OUTPUTS / seconds:,.0f} with the "
            f"{fitting:.2f} s that {INDEX:,} index examples take once), the published way {published:,.0f}, "
            f"{rate / published:,.0f} x"
        )
