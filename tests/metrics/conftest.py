"""pycocoevalcap's own tokenizer and scorer, the plain twins of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.metrics.official import let_it_find_java, published_tokens


@pytest.fixture
def official_tokens(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable:
    """Tokenizes lists of captions as the published evaluation does: one Java call on a file of all of them."""
    let_it_find_java(monkeypatch)

    def tokenize(lists: Sequence[Sequence[str]]) -> list[list[str]]:
        tokens = published_tokens(lists)
        capfd.readouterr()
        return tokens

    return tokenize


@pytest.fixture
def official_cider(official_tokens: Callable) -> Callable:
    """Per-example CIDEr-D by pycocoevalcap, tokenization included."""
    from pycocoevalcap.cider.cider import Cider

    def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        answers = official_tokens([[text] for text in predictions])
        known = official_tokens(references)
        _, scores = Cider().compute_score(dict(enumerate(known)), dict(enumerate(answers)))
        return np.asarray(scores)

    return score
