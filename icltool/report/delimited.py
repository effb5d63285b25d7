"""Results as CSV: one line per setting and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from icltool.store.evaluations import SettingResult

COLUMNS = ("method", "shots", "seed", "queries", "metric", "mean", "low", "high", "seconds")


def results_rows(results: Sequence[SettingResult]) -> list[dict[str, Any]]:
    """One mapping with COLUMNS per setting and metric, in order."""
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
        }
        for result in results
        for name, figures in result.metrics.items()
    ]


def results_csv(results: Sequence[SettingResult]) -> str:
    """CSV with a header line, full precision, quoted where a value needs it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(results_rows(results))
    return text.getvalue()
