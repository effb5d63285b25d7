"""pycocoevalcap's own tokenizer and scorer, the plain twins of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.components.metrics.captions import corpus
from tests.components.metrics.official import let_it_find_java, published_tokens
from tests.conftest import Shared

#: Seeds and sizes of the corpora that tests compare on.
CORPORA = ((1, 1), (2, 2), (3, 600), (11, 400), (12, 50), (600, 600), (700, 700))


@pytest.fixture(scope="session")
def tokens_of_corpora(shared: Shared) -> Mapping[str, str]:
    """What the published evaluation makes of each text of the corpora: one Java call on a file of all of them."""

    def fill(folder: Path) -> None:
        texts = {""}
        for predictions, references in (corpus(*which) for which in CORPORA):
            texts |= {*predictions, *(text for known in references for text in known)}
        with pytest.MonkeyPatch.context() as patch:
            let_it_find_java(patch)
            published = published_tokens([[text] for text in sorted(texts)])
        tokens = {text: line for text, (line,) in zip(sorted(texts), published, strict=True)}
        (folder / "tokens.json").write_text(json.dumps(tokens))

    return dict(json.loads((shared("published-tokens", fill) / "tokens.json").read_text()))


@pytest.fixture
def official_tokens(tokens_of_corpora: Mapping[str, str]) -> Callable:
    """Tokenizes lists of captions of the corpora as the published evaluation does."""
    return lambda lists: [[tokens_of_corpora[text] for text in texts] for texts in lists]


@pytest.fixture
def official_tokenizer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable:
    """Tokenizes lists of any captions: one Java call on a file of all of them."""
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
