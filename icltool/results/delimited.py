"""Results as CSV: one line per setting and metric, with all that its figures depend on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from icltool.contracts.evaluation import EvaluationProvenance
from icltool.results.costs import cost_of
from icltool.store.checkpoint_names import checkpoint_name_in
from icltool.store.evaluations import SettingResult

COLUMNS = ("method", "shots", "seed", "queries", "metric", "mean", "low", "high", "seconds")
#: Behind those, where a setting's cost was measured: per query, by key in `extra["cost"]`.
COST_COLUMNS = {"prompt_tokens": "prompt_tokens", "flops": "flops", "seconds": "seconds_per_query"}
#: Behind those: the evaluation, and what its configuration says.
OF_EVALUATION = ("dataset", "task", "model", "model_path", "prompt_template", "prompt_style", "quantization")
#: Behind those: how the setting was answered, `extra["run"]`.
OF_RUN = ("date", "icltool", "torch", "transformers", "device", "precision", "weights")


def results_rows(
    results: Sequence[SettingResult], provenance: EvaluationProvenance | None = None, evaluation: str = ""
) -> list[dict[str, object]]:
    """One mapping with COLUMNS per setting and metric, in order; with COST_COLUMNS where any setting has a cost; then the
    evaluation's name, split, OF_EVALUATION, OF_RUN and, as JSON, the setting's options and the evaluation's."""
    costed = COST_COLUMNS if any(cost_of(result) for result in results) else {}
    configuration = (provenance or {}).get("configuration") or {}
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
            "evaluation": evaluation,
            "split": configuration.get("queries", "validation"),
            **{key: configuration.get(key) for key in OF_EVALUATION},
            "checkpoint": checkpoint_name_in(configuration),
            **{key: (result.extra.get("run") or {}).get(key) for key in OF_RUN},
            "method_options": _json(result.extra.get("options")),
            "options": _json({**configuration, **((result.extra.get("run") or {}).get("generation") or {})}),
        }
        for result in results
        for name, figures in result.metrics.items()
    ]


def results_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """CSV of `results_rows` with a header line, full precision, quoted where a value needs it."""
    return csv_text(list(dict.fromkeys(key for row in rows for key in row)) or COLUMNS, rows)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A header line and the rows; a cell without a value is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json(value: object) -> str:
    return json.dumps(value or {}, sort_keys=True, ensure_ascii=False, default=str)
