"""Accuracy of a classification."""

from __future__ import annotations

import pytest

from icltool.components.metrics.accuracy import Accuracy
from icltool.contracts import CorpusMetric, Metric


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("positive", ("positive",), 1.0),
        (" Positive\n", ("positive",), 1.0),
        ("positive.", ("positive",), 0.0),
        ("STRASSE", ("negative", "straße"), 1.0),
        ("", ("positive",), 0.0),
        ("positive", (), 0.0),
        ("pos itive", ("positive",), 0.0),
    ],
)
def test_exact_match_with_any_reference(answer: str, references: tuple[str, ...], expected: float) -> None:
    assert Accuracy().score([answer], [references]).tolist() == [expected]


def test_its_figure_is_the_mean() -> None:
    metric = Accuracy()
    assert isinstance(metric, Metric)
    assert not isinstance(metric, CorpusMetric)
    with pytest.raises(ValueError, match="1 predictions, 2"):
        metric.score(["a"], [["a"], ["b"]])
