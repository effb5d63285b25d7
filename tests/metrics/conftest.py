"""pycocoevalcap's own tokenizer and scorer, the plain twins of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from icltool.metrics.java import require_java


@pytest.fixture
def official_tokens(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable:
    """Tokenizes lists of captions as the published evaluation does: one Java call on a file of all of them."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setenv("PATH", f"{require_java().parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8")

    def tokenize(lists: Sequence[Sequence[str]]) -> list[list[str]]:
        entries = {i: [{"caption": text} for text in texts] for i, texts in enumerate(lists)}
        tokens = PTBTokenizer().tokenize(entries)
        capfd.readouterr()
        return [tokens[i] for i in range(len(lists))]

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
