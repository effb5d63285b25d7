"""What metrics say of a setting's answers: a score per answer, the figure of all, and the figure in bootstrap draws."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import numpy as np

from icltool.contracts import CorpusMetric, Example, Float64Array, Judgement, Metric, too_few_references
from icltool.contracts.evaluation import Prediction
from icltool.contracts.metric import ChecksItself, GivesWay, ReadsField
from icltool.errors import DataError, IclError
from icltool.plugin.manager import component
from icltool.results.intervals import bootstrap_draws, bootstrap_weights, quantile_interval
from icltool.store.evaluations import MetricResult

Rows = Sequence[Prediction]
Queries: TypeAlias = Callable[[], Iterable[Example]]

#: The field that metrics read unless they say otherwise.
_REFERENCES = "references"


@dataclass(frozen=True)
class Judged:
    """One metric's view of one setting, all times the metric's scale.

    `scores` float64 [Q]; `figure` is the corpus figure; `draws` float64 [R] is the figure in each bootstrap draw of
    clusters of queries, the same draws for all settings on the same queries.
    """

    scores: Float64Array
    figure: float
    draws: Float64Array = field(default_factory=lambda: np.empty(0))

    @property
    def result(self) -> MetricResult:
        """Figure and 95 % interval."""
        return MetricResult(self.figure, *quantile_interval(self.draws))


class Judge:
    """Applies the metrics. A metric that cannot run (for example, because its program or models are missing) is left out
    from then on, and `faults` says why, by metric.

    With `default`, nobody asked for these metrics: one that cannot run gives way to the metric that it names as `instead`,
    if that can. `replaced` then holds (the other's name, why), by metric.
    """

    def __init__(self, metrics: Mapping[str, Metric], default: bool = False) -> None:
        self.metrics = dict(metrics)
        self.faults: dict[str, IclError] = {}
        self.replaced: dict[str, tuple[str, IclError]] = {}
        self._default = default

    def prepare(self, queries: Queries = tuple) -> None:
        """Finds out what cannot run before anything is answered, and what gives way. Raises the first metric's error when
        none can run. `queries` gives those that will be judged; it is asked only by a metric that reads something else
        than the references."""
        metrics = self.metrics
        self.metrics = {}
        for name, metric in metrics.items():
            error = _fault(metric, queries)
            other = metric.instead if error and self._default and isinstance(metric, GivesWay) else ""
            if error and other and other not in metrics:
                stand_in: Metric = component("metrics", other)
                if _fault(stand_in, queries) is None:
                    self.metrics[other], self.replaced[name] = stand_in, (other, error)
                    continue
            self.metrics[name] = metric
            if error:
                self.faults[name] = error
        if self.metrics and len(self.faults) == len(self.metrics):
            raise next(iter(self.faults.values()))

    def judge(self, rows: Rows, draws: bool = True, without: Collection[str] = ()) -> dict[str, Judged]:
        """By metric, those in `without` and those that cannot run left out."""
        judged: dict[str, Judged] = {}
        for name, metric in self.metrics.items():
            if name in self.faults or name in without:
                continue
            try:
                answers, references = [r["answer"] for r in rows], [_references(r, metric) for r in rows]
                scores = np.asarray(metric.score(answers, references), dtype=np.float64) * metric.scale
                judged[name] = self.figures(name, rows, scores, draws)
            except IclError as error:
                self.faults[name] = error
        return judged

    def figures(self, name: str, rows: Rows, scores: Float64Array, draws: bool = True) -> Judged:
        """The figure of all rows and of the draws, from scores [Q] that are there already."""
        metric, clusters = self.metrics[name], clusters_of(rows)
        if not isinstance(metric, CorpusMetric):
            return Judged(scores, float(scores.mean()), bootstrap_draws(scores, clusters) if draws else np.empty(0))
        judgements = [judgement(row, metric) for row in rows]
        figure = float(metric.figures(judgements, np.ones((1, len(rows))))[0]) * metric.scale
        blocks = bootstrap_weights(len(rows), clusters) if draws else ()
        drawn = [metric.figures(judgements, weights) * metric.scale for weights in blocks]
        return Judged(scores, figure, np.concatenate(drawn) if drawn else np.empty(0))

    def stored(self, rows: Rows) -> dict[str, Judged]:
        """By metric, from the scores that the rows hold; metrics that have not scored them are left out."""
        judged: dict[str, Judged] = {}
        for name in self.metrics:
            if name in self.faults or any(name not in row["scores"] for row in rows):
                continue
            try:
                judged[name] = self.figures(name, rows, scores_of(rows, name))
            except IclError as error:
                self.faults[name] = error
        return judged

    def breakdown(self, rows: Rows, column: str, judged: Mapping[str, Judged]) -> dict[str, dict[str, float]]:
        """For each value of a column or an aspect of the rows, sorted: how many queries have it ("queries"), and each metric's
        figure over those, as the official VQA evaluation reports per answer type and question type."""
        of_rows = [str(row.get(column) or row.get("aspects", {}).get(column, "")) for row in rows]
        values = sorted({*of_rows} - {""})
        if not values:
            return {}
        chosen = np.array([[of_row == value for of_row in of_rows] for value in values], dtype=np.float64)
        table: dict[str, dict[str, float]] = {
            value: {"queries": int(count)} for value, count in zip(values, chosen.sum(axis=1), strict=True)
        }
        for name, one in judged.items():
            metric = self.metrics[name]
            if isinstance(metric, CorpusMetric):
                figures = metric.figures([judgement(row, metric) for row in rows], chosen) * metric.scale
            else:
                figures = chosen @ one.scores / chosen.sum(axis=1)
            for value, figure in zip(values, figures.tolist(), strict=True):
                table[value][name] = figure
        return table


def judgement(row: Prediction, metric: Metric | None = None) -> Judgement:
    """A prediction row as corpus metrics see it. DataError when it lacks what the metric reads."""
    references, aspects = tuple(_references(row, metric)), dict(row.get("aspects", {}))
    return Judgement(row["answer"], references, dict(row.get("log_probs", {})), aspects)


def _references(row: Prediction, metric: Metric | None) -> Sequence[str]:
    field = _reads(metric)
    references = cast("list[str]", row.get(field) or [])  # a field of Example that predictions have, too
    if not references and field != _REFERENCES:
        raise _lacking(metric, row["query_id"])
    return references


def _reads(metric: Metric | None) -> str:
    return metric.reads if isinstance(metric, ReadsField) else _REFERENCES


def _fault(metric: Metric, queries: Queries) -> IclError | None:
    """Why the metric cannot judge these queries here."""
    field = _reads(metric)
    without = None if field == _REFERENCES else next((q.id for q in queries() if not getattr(q, field)), None)
    if without is not None:
        return _lacking(metric, without)
    if (fault := too_few_references(metric, lambda: (getattr(q, field) for q in queries()))) is not None:
        return fault
    try:
        if isinstance(metric, ChecksItself):
            metric.check()
    except IclError as error:
        return error
    return None


def _lacking(metric: Metric | None, query_id: int) -> DataError:
    name, field = "the metric" if metric is None else metric.name, _reads(metric).replace("_", " ")
    return DataError(
        f"{name} reads {field}, which query {query_id} lacks",
        "prepare the data set again if an older version prepared it, or use another metric",
    )


def scores_of(rows: Rows, metric: str) -> Float64Array:
    """float64 [Q]: the stored scores, NaN where there is no number."""
    scores = [row["scores"].get(metric) for row in rows]
    return np.array([np.nan if score is None else score for score in scores], dtype=np.float64)


def clusters_of(rows: Rows) -> list[str]:
    """What is drawn together: near-duplicates, else each query on its own."""
    return [row["group"] or str(row["query_id"]) for row in rows]
