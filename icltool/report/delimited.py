"""Results as CSV: one line per setting and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from icltool.report.costs import cost_of
from icltool.store.evaluations import SettingResult

COLUMNS = ("method", "shots", "seed", "queries", "metric", "mean", "low", "high", "seconds")
#: Behind those, where a setting's cost was measured: per query, by key in `extra["cost"]`.
COST_COLUMNS = {"prompt_tokens": "prompt_tokens", "flops": "flops", "seconds": "seconds_per_query"}


def results_rows(results: Sequence[SettingResult]) -> list[dict[str, Any]]:
    """One mapping with COLUMNS per setting and metric, in order; with COST_COLUMNS where any setting has a cost."""
    costed = COST_COLUMNS if any(cost_of(result) for result in results) else {}
    return [
        {
            "method": result.method,
            "shots": result.shots,
            "seed": result.seed,
            "queries": result.queries,
            "metric": name,
            "mean": figures.mean,
            "low": figures.low,
            "high": figures.high,
            "seconds": result.seconds,
            **{column: cost_of(result).get(kind) for kind, column in costed.items()},
        }
        for result in results
        for name, figures in result.metrics.items()
    ]


def results_csv(results: Sequence[SettingResult]) -> str:
    """CSV with a header line, full precision, quoted where a value needs it."""
    text = io.StringIO()
    rows = results_rows(results)
    writer = csv.DictWriter(text, rows[0] if rows else COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
