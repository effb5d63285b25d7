"""The capacity that is worked out: a small edition of it, and its arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.capacity import (
    Cost,
    Search,
    index_cost,
    measured,
    tables,
    throughput,
    workers_of_one_writer,
)

COST = Cost(40.0, 2.0 * 2**30, 1000.0, 2000.0, {"float16": 3100.0, "float32": 6200.0}, 768)


def test_prompts_of_the_published_search() -> None:
    assert Search().prompts == 1 + 64 + 5 * 63
    assert Search(candidates=4, beams=2, shots=3).prompts == 1 + 4 + 2 * 3 + 2 * 2


def test_rates_add_up_until_the_writer_is_full() -> None:
    search = Search()
    one, eight = (throughput(COST, search, workers, 1000, 8) for workers in (1, 8))
    assert eight.queries == pytest.approx(8 * one.queries)
    assert one.queries == pytest.approx(40 / 380)
    assert one.hours == pytest.approx(1000 * 380 / 40 / 3600)
    assert one.gigabytes == pytest.approx(0.002)
    assert (one.node_memory, eight.node_memory) == (2 * 2**30, 16 * 2**30)
    full = workers_of_one_writer(COST, search)
    assert full == pytest.approx(9500)
    most = throughput(COST, search, int(3 * full), 1000, 8)
    assert (most.queries, most.load) == (1000.0, pytest.approx(3.0))
    assert throughput(COST, search, 8, 1000, 8, efficiency=0.5).queries == pytest.approx(eight.queries / 2)


def test_an_exact_search_grows_with_the_examples_and_ivf_pq_with_their_root() -> None:
    small, large = (index_cost(COST, examples) for examples in (10**6, 10**8))
    assert small.exact == pytest.approx(1.536)
    assert large.exact == pytest.approx(100 * small.exact)
    assert large.probed == pytest.approx(10 * small.probed)
    assert large.stored["float16"] == pytest.approx(310.0)
    assert large.codes == pytest.approx(7.2 + 0.12, rel=0.02)


def test_a_measurement_prints_both_tables(tmp_path: Path) -> None:
    search = Search(candidates=6, beams=2)
    cost = measured(tmp_path, search, dim=256, queries=200)
    assert cost.prompts_per_second > 0
    assert cost.writer > 0
    assert cost.memory > 50 * 2**20
    assert cost.query_bytes >= 8 * (6 + 2 * 2)  # ids alone
    assert 2 * 2 * 256 <= cost.example_bytes["float16"] < 1.6 * 2 * 2 * 256
    assert 2 * 4 * 256 <= cost.example_bytes["float32"] < 1.6 * 2 * 4 * 256
    lines = tables(cost, search, nodes=100, gpus=8, anchors=1000, efficiency=0.9)
    assert sum(line.startswith("| 800 |") for line in lines) == 1
    assert sum(line.startswith("| 100,000,000 |") for line in lines) == 1
