"""Decoding with a state that is kept, and as the definitions have it: every step reads its sequence from the start.

python -m pytest tests/benchmarks/test_decoding_speed.py -s
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from icltool.components.learners.lever_lm.building import build_model
from icltool.components.learners.lever_lm.decoding import beam, greedy, next_row
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.contracts.options import options_from
from tests.components.learners.plain_decoding import plain_beam, plain_greedy

pytestmark = pytest.mark.benchmark

QUERIES, EXAMPLES, DIM, BATCH, BEAMS = 512, 10_000, 512, 128, 5
#: (beams, shots) -> how many of the queries are decoded with the state and the plain way, which needs minutes for all.
SETTINGS = {(1, 8): (512, 256), (1, 32): (512, 64), (BEAMS, 8): (512, 32), (BEAMS, 32): (128, 8)}


def _timed(decode: Callable[[slice], torch.Tensor], queries: int) -> tuple[float, torch.Tensor]:
    """(sequences per second, rows of all batches)."""
    start = time.perf_counter()
    results = [decode(slice(first, min(first + BATCH, queries))) for first in range(0, queries, BATCH)]
    return queries / (time.perf_counter() - start), torch.cat(results)


@torch.inference_mode()
@pytest.mark.parametrize("network", ["gpt2", "lstm", "pointer"])
def test_speed_beside_reading_the_whole_sequence(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints sequences per second of both, from stored embeddings to rows. The rows must be equal; no time is asserted."""
    torch.manual_seed(0)
    options = options_from("lever-lm", LeverLMOptions, {"network": network, "dropout": 0.0})
    model = build_model(EXAMPLES, DIM, options).double().eval().requires_grad_(False)
    query = {m: torch.randn(QUERIES, DIM, dtype=torch.float64) for m in options.reads.query}
    table = {m: torch.randn(EXAMPLES, DIM) for m in options.reads.icd}
    tokens = torch.arange(EXAMPLES)
    targets = model.targets(tokens, {m: v.double() for m, v in table.items()})
    search = next_row(model, targets)
    closed = torch.zeros((QUERIES, EXAMPLES), dtype=torch.bool)
    closed[torch.arange(QUERIES), torch.randint(EXAMPLES, (QUERIES,))] = True

    for (beams, shots), (many, some) in SETTINGS.items():

        def fast(part: slice) -> torch.Tensor:
            queries, shut = {m: v[part] for m, v in query.items()}, closed[part].clone()
            if beams == 1:  # noqa: B023  (called in this round of the loop only)
                return greedy(model, queries, table, tokens, search, shut, shots)  # noqa: B023
            return beam(model, queries, table, tokens, targets, shut, shots, beams)  # noqa: B023

        def plain(part: slice) -> torch.Tensor:
            queries, shut = {m: v[part] for m, v in query.items()}, closed[part]
            if beams == 1:  # noqa: B023
                return plain_greedy(model, queries, table, tokens, targets, shut, shots)  # noqa: B023
            return plain_beam(model, queries, table, tokens, targets, shut, shots, beams)  # noqa: B023

        fast(slice(0, 2))
        rate, rows = _timed(fast, many)
        plain_rate, expected = _timed(plain, some)
        assert torch.equal(rows[:some], expected)
        with capsys.disabled():
            print(
                f"\ndecoding, {network}, {'greedy' if beams == 1 else f'{beams} beams'}, {shots} shots, {EXAMPLES:,} "
                f"examples: {rate:,.1f} sequences/s ({many} queries), plain {plain_rate:,.1f} ({some} of them), "
                f"{rate / plain_rate:.1f} x",
                end="",
            )
