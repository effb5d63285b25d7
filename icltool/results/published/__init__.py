"""Figures that others reported, as data: one TOML file for each source.

A file has the `source`, as it is cited, the `table` or place in it, and a `protocol`: what is known of how the figures were
made, and how that differs. Each entry of `figures` has a model, a method, the data sets that a figure is compared with, a
metric, and `values` by the number of demonstrations, perhaps with their standard deviations `sd`; its own `protocol` replaces
that of the file. Figures are in the usual scale of their metric.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of a model on a data set. `sd` is its standard deviation over trials, None if it was not reported."""

    model: str
    dataset: str
    split: str
    metric: str
    method: str
    shots: int
    value: float
    sd: float | None
    source: str
    table: str
    protocol: str


@cache
def all_figures() -> tuple[PublishedFigure, ...]:
    """All figures of all sources, the sources by the names of their files."""
    items = sorted(
        (item for item in files(__name__).iterdir() if item.name.endswith(".toml")), key=lambda item: item.name
    )
    return tuple(figure for item in items for figure in _figures(tomllib.loads(item.read_text("utf-8"))))


def published(model: str, dataset: str, metrics: Iterable[str] = ()) -> list[PublishedFigure]:
    """Those of a model on a data set; with `metrics`, those by one of them first."""
    figures = [figure for figure in all_figures() if (figure.model, figure.dataset) == (model, dataset)]
    first = list(metrics)
    return sorted(figures, key=lambda figure: bool(first) and figure.metric not in first)


def published_lines(figures: Sequence[PublishedFigure]) -> list[str]:
    """A line for each source and protocol, with all its figures."""
    lines: dict[tuple[str, str], dict[tuple[str, str], list[str]]] = {}
    for figure in figures:
        by_method = lines.setdefault((figure.source, figure.protocol), {})
        by_method.setdefault((figure.metric, figure.method), []).append(f"{figure.shots}-shot {figure_text(figure)}")
    return [
        f"reported by {source}: "
        + "; ".join(f"{metric}, {method} {', '.join(values)}" for (metric, method), values in by_method.items())
        + (f" (protocol differs: {protocol})" if protocol else "")
        for (source, protocol), by_method in lines.items()
    ]


def figure_text(figure: PublishedFigure) -> str:
    """The value with one or two digits, and its standard deviation."""
    return _digits(figure.value) + ("" if figure.sd is None else f" ±{_digits(figure.sd)}")


def _digits(value: float) -> str:
    return f"{value:.1f}" if round(value, 1) == round(value, 2) else f"{value:.2f}"


def published_for(configuration: Mapping[str, Any], metrics: Iterable[str]) -> list[PublishedFigure]:
    """The figures to show beside an evaluation with this configuration: those of its model on its data set, the metrics that
    it computes first. None for queries of the index set, and for demonstrations of another data set."""
    if configuration.get("queries", "validation") != "validation" or configuration.get("index_dataset"):
        return []
    return published(str(configuration.get("model")), str(configuration.get("dataset")), metrics)


def _figures(content: dict[str, Any]) -> list[PublishedFigure]:
    """The figures of one source."""
    return [
        PublishedFigure(
            model=entry["model"],
            dataset=dataset,
            split=entry.get("split", ""),
            metric=entry["metric"],
            method=entry["method"],
            shots=int(shots),
            value=float(value),
            sd=entry.get("sd", {}).get(shots),
            source=content["source"],
            table=content["table"],
            protocol=entry.get("protocol", content["protocol"]),
        )
        for entry in content["figures"]
        for dataset in entry["datasets"]
        for shots, value in entry["values"].items()
    ]
