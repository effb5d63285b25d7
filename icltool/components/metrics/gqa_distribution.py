"""How far the distribution of answers to GQA's questions is from that of the right answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import Field

from icltool.components.metrics.exact_match import ExactMatch, ExactMatchOptions, Norm
from icltool.contracts import Float64Array, IntArray, Options
from icltool.contracts.metric import Judgement
from icltool.errors import DataError

#: The aspect that groups are named by, and the unit of the published figures.
GROUP, _UNIT = "global_group", 100.0


class GqaDistributionOptions(Options):
    """How answers and references are normalised."""

    norm: Norm = Field("strict", description="as the norm of exact-match; the official evaluation compares as written")


class GqaDistribution:
    """Distribution (Hudson and Manning, arXiv:1902.09506): chi-square of the answers against the right answers
    within each of GQA's global groups of questions, weighted by the groups' sizes, over 100.

    With e_a questions of a group whose right answer is a, and o_a answers a to the group's questions, chi-square is the sum of
    (o_a - e_a)^2 / e_a over the right answers a of the group; other answers cost nothing. The right answers are the first
    references of the judged queries. Questions without a group are left out. Lower is better, and the figure grows with the
    number of questions: only figures on the same queries compare.
    """

    name = "gqa-distribution"
    scale = 1.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("vqa",)
    options_model = GqaDistributionOptions

    def __init__(self, options: GqaDistributionOptions | None = None) -> None:
        norm = GqaDistributionOptions().norm if options is None else options.norm
        self._match = ExactMatch(ExactMatchOptions(norm=norm))

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the distribution of right answers is that of the judged queries."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]: whether each answer is right. Their mean is the accuracy; the metric is `figures`."""
        return self._match.score(predictions, references)

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """float64 [R]: the distribution under each weighting; NaN where no question with a group has weight.

        Raises DataError where none of the questions has a group.
        """
        grouped = [n for n, j in enumerate(judgements) if j.aspects.get(GROUP) and j.references]
        if judgements and not grouped:
            raise DataError(
                "gqa-distribution needs questions in GQA's global groups, and none of these is in one",
                "it judges open questions of the data set gqa; use exact-match for others",
            )
        weighted = weights[:, grouped]
        chosen = [judgements[n] for n in grouped]
        right = [(j.aspects[GROUP], self._match.of_reference(j.references[0])) for j in chosen]
        cells = {cell: number for number, cell in enumerate(dict.fromkeys(right))}
        given = [(j.aspects[GROUP], self._match.of_answer(j.answer)) for j in chosen]
        expected = _totals(weighted, np.array([cells[cell] for cell in right], dtype=np.int64), len(cells))
        observed = _totals(weighted, np.array([cells.get(cell, -1) for cell in given], dtype=np.int64), len(cells))

        groups = {group: number for number, group in enumerate(dict.fromkeys(group for group, _ in cells))}
        of_cell = np.array([groups[group] for group, _ in cells], dtype=np.int64)
        costs = np.zeros_like(expected)
        np.divide((observed - expected) ** 2, expected, out=costs, where=expected > 0)
        sizes = _totals(expected, of_cell, len(groups))
        total = sizes.sum(axis=1)
        figures = np.full(len(weights), np.nan)
        weighed = (_totals(costs, of_cell, len(groups)) * sizes).sum(axis=1)
        np.divide(weighed, total * _UNIT, out=figures, where=total > 0)
        return figures


def _totals(values: Float64Array, of_column: IntArray, count: int) -> Float64Array:
    """float64 [R, count]: the sums of those of the columns of `values` [R, n] that belong to each number from 0; columns of -1
    belong to none."""
    totals = np.zeros((len(values), count))
    order = np.argsort(of_column, kind="stable")
    order = order[np.searchsorted(of_column[order], 0) :]
    if len(order):
        numbers, starts = np.unique(of_column[order], return_index=True)
        totals[:, numbers] = np.add.reduceat(values[:, order], starts, axis=1)
    return totals
