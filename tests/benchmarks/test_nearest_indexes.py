"""A small edition of nearest_indexes.py: prints its table; recall and memory are held, no time is.

python -m pytest tests/benchmarks/test_nearest_indexes.py -s
"""

from __future__ import annotations

import sys

import pytest

from icltool.components.retrievers.approximate import EXACT, LINKS, code_bytes
from tests.benchmarks.nearest_indexes import CHOICES, compare, line

pytestmark = pytest.mark.benchmark

ROWS, DIM = 40_000, 128
#: Bytes per row of 128 values, centres and what building leaves behind not counted.
WANTED = {"ivf": 4 * DIM + 8, "ivf-pq": code_bytes(DIM) + 8, "hnsw": 4 * DIM + 8 * LINKS + 20}


def test_defaults_find_nearly_all_and_more_effort_finds_more(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{ROWS:,} rows x {DIM}")
        results = []
        for figures in compare(ROWS, DIM, 300):
            results.append(figures)
            print(line(figures))
    for kind, choices in CHOICES.items():
        of_kind = {f.options: f for f in results if f.options.index == kind}
        default = of_kind[choices[0]]
        assert default.options == type(EXACT)(kind), "the first choice is the default"
        assert min(default.recall.values()) > 0.95
        efforts = sorted(of_kind.values(), key=lambda f: (f.options.probes, f.options.ef))
        assert efforts[-1].recall["@64"] >= efforts[0].recall["@64"]
        if sys.platform == "linux":
            assert 0.7 * WANTED[kind] < default.bytes_per_row < 1.3 * WANTED[kind] + 150
