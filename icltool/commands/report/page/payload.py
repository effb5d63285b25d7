"""What the page's script reads: everything of the gallery in columns, compressed; pictures as they are."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from icltool.commands.report.page.content import Page
from icltool.commands.report.page.table import digits_of, gain_digits

#: Metrics of which 100 is a right answer and 0 a wrong one.
_JUDGED = ("accuracy",)
#: Significant digits of the figures in the gallery.
_DIGITS = 7


def columns(page: Page) -> dict[str, Any]:
    """The gallery as JSON-ready columns; NaN becomes null. Positions refer to the lists of the Page."""
    metrics = shown_metrics(page)
    settings, queries, icds, results = page.settings, page.queries, page.demonstrations, page.results
    datasets = list(dict.fromkeys(q.dataset for q in queries))
    place = {name: i for i, name in enumerate(datasets)}
    return {
        "kind": page.kind,
        "metrics": metrics,
        "lower": [m in page.lower_is_better for m in metrics],
        "judged": [m.endswith(_JUDGED) for m in metrics],
        "digits": [digits_of(page, m) for m in metrics],
        "gain_digits": [gain_digits(page, m, [r.gains.get(m) for r in results]) for m in metrics],
        "pictures": {"width": [p.width for p in page.pictures], "height": [p.height for p in page.pictures]},
        "sources": [source.title for source in page.sources],
        "datasets": datasets,
        "settings": {
            "source": [s.evaluation for s in settings],
            "method": [s.method for s in settings],
            "shots": [s.shots for s in settings],
            "seed": [s.seed for s in settings],
        },
        "queries": {
            "id": [q.id for q in queries],
            "dataset": [place[q.dataset] for q in queries],
            "question": [q.question for q in queries],
            "references": [list(q.references) for q in queries],
            "picture": [q.picture for q in queries],
        },
        "icds": {
            "id": [d.id for d in icds],
            "text": [d.text for d in icds],
            "label": [d.label for d in icds],
            "picture": [d.picture for d in icds],
        },
        "results": {
            "setting": [r.setting for r in results],
            "query": [r.query for r in results],
            "icds": [list(r.demonstrations) for r in results],
            "prompt": [r.prompt for r in results],
            "answer": [r.answer for r in results],
            "raw": [r.raw for r in results],
            "scores": [_figures(r.scores, metrics) for r in results],
            "gains": [_figures(r.gains, metrics) for r in results],
            "leaks": [{k: n for k, n in r.leaks.items() if n} or None for r in results],
            "copied": [list(r.copied) for r in results],
            "steps": [[_finite(v) for v in r.steps] for r in results],
            "missing": [r.missing for r in results],
        },
    }


def shown_metrics(page: Page) -> list[str]:
    """The page's metrics, then others that single results have (such as what a beam was ranked by)."""
    further = dict.fromkeys(name for r in page.results for name in r.scores)
    return list(dict.fromkeys([*page.metrics, *further]))


def packed(value: Any) -> str:
    """JSON, compressed by gzip, as base64: the same for the same value."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode("ascii")


def pictures(page: Page) -> str:
    """The addresses of the pictures as a JSON list. Raises ValueError where one is not a picture within the page."""
    for one in page.pictures:
        if not one.source.startswith("data:image/"):
            raise ValueError("a thumbnail is no data address of a picture")
    text = json.dumps([one.source for one in page.pictures], separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _figures(found: Mapping[str, float], metrics: Sequence[str]) -> list[float | None]:
    return list(_trimmed(_finite(found.get(name)) for name in metrics))


def _trimmed(values: Iterable[float | None]) -> list[float | None]:
    kept = list(values)
    while kept and kept[-1] is None:
        kept.pop()
    return kept


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
