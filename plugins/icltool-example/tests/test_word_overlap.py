from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from icltool_example.word_overlap import WordOverlapOptions, WordOverlapScorer

from icltool import ScoringRequest
from icltool.testing import InMemorySession, check_scorer, make_examples


def test_it_conforms() -> None:
    check_scorer(WordOverlapScorer)


@pytest.mark.parametrize(("labels", "value"), [([], 0.0), (["red boat"], 0.5), (["red boat", "big dog"], 1.0)])
def test_value_is_the_share_of_words_shown(labels: list[str], value: float, tmp_path: Path) -> None:
    first, *others = make_examples(tmp_path, 3, size=8)
    query = replace(first, label="Red dog")
    demonstrations = tuple(replace(e, label=label) for e, label in zip(others, labels, strict=False))
    session = InMemorySession([first, *others], needs=frozenset())
    assert WordOverlapScorer(WordOverlapOptions()).evaluate(
        session, [ScoringRequest(query, demonstrations)]
    ).values.tolist() == [value]


def test_case_can_count(tmp_path: Path) -> None:
    first, second = make_examples(tmp_path, 2, size=8)
    request = ScoringRequest(replace(first, label="Red"), (replace(second, label="red"),))
    session = InMemorySession([first, second], needs=frozenset())
    assert WordOverlapScorer(WordOverlapOptions(case_sensitive=True)).evaluate(session, [request]).values.tolist() == [
        0.0
    ]
