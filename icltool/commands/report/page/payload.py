"""What the page's script reads: everything of the gallery in columns, compressed; images as they are."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence

from jinja2.utils import htmlsafe_json_dumps

from icltool.commands.report.page.content import Page
from icltool.commands.report.page.table import digits_of, gain_digits
from icltool.contracts.json import Json

#: Metrics of which 100 is a right answer and 0 a wrong one.
_JUDGED = ("accuracy",)
#: Significant digits of the figures in the gallery.
_DIGITS = 7


def columns(page: Page) -> dict[str, Json]:
    """The gallery as JSON-ready columns; NaN becomes null. Positions refer to the lists of the Page."""
    metrics = shown_metrics(page)
    datasets = list(dict.fromkeys(q.dataset for q in page.queries))
    results = page.results
    return {
        "kind": page.kind,
        "metrics": metrics,
        "lower": [m in page.lower_is_better for m in metrics],
        "judged": [m.endswith(_JUDGED) for m in metrics],
        "digits": [digits_of(page, m) for m in metrics],
        "gain_digits": [gain_digits(page, m, [r.gains.get(m) for r in results]) for m in metrics],
        "images": _columns(page.images, "width", "height"),
        "sources": [source.title for source in page.sources],
        "datasets": datasets,
        "settings": {
            "source": [s.evaluation for s in page.settings],
            **_columns(page.settings, "method", "shots", "seed"),
        },
        "queries": {
            "dataset": [datasets.index(q.dataset) for q in page.queries],
            **_columns(page.queries, "id", "question", "references", "images"),
        },
        "icds": _columns(page.demonstrations, "id", "text", "label", "images"),
        "results": {
            "icds": [r.demonstrations for r in results],
            **_columns(results, "setting", "query", "prompt", "answer", "raw", "copied", "missing"),
            "scores": [_figures(r.scores, metrics) for r in results],
            "gains": [_figures(r.gains, metrics) for r in results],
            "leaks": [{k: n for k, n in r.leaks.items() if n} or None for r in results],
            "steps": [[_finite(v) for v in r.steps] for r in results],
        },
    }


def shown_metrics(page: Page) -> list[str]:
    """The page's metrics, then others that single results have (such as what a beam was ranked by)."""
    further = dict.fromkeys(name for r in page.results for name in r.scores)
    return list(dict.fromkeys([*page.metrics, *further]))


def packed(value: Json) -> str:
    """JSON, compressed by gzip, as base64: the same for the same value."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode("ascii")


def images(page: Page) -> str:
    """The addresses of the images as a JSON list that may stand in HTML. Raises ValueError where one is not an image within
    the page."""
    for one in page.images:
        if not one.source.startswith("data:image/"):
            raise ValueError("a thumbnail is not a data URL of an image")
    return htmlsafe_json_dumps([one.source for one in page.images], separators=(",", ":"))


def _columns(records: Iterable[object], *names: str) -> dict[str, Json]:
    """These fields of the records, a list for each."""
    return {name: [getattr(one, name) for one in records] for name in names}


def _figures(by_metric: Mapping[str, float], metrics: Sequence[str]) -> list[float | None]:
    """By metric, cut behind the last that is known."""
    values = [_finite(by_metric.get(name)) for name in metrics]
    while values and values[-1] is None:
        values.pop()
    return values


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
