"""pycocoevalcap's tokenizer, and its CIDEr-D with the statistics of another corpus, which its interface cannot be given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from icltool.components.metrics.java import require_java


def let_it_find_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """pycocoevalcap calls `java`, and reads what it writes as UTF-8."""
    monkeypatch.setenv("PATH", f"{require_java().parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8")


def published_tokens(lists: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lists of captions tokenized as the published evaluation does: one Java call on a file of all of them."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    entries = {i: [{"caption": text} for text in texts] for i, texts in enumerate(lists)}
    tokens = PTBTokenizer().tokenize(entries)
    return [tokens[i] for i in range(len(lists))]


class _Corpus(list):  # type: ignore[type-arg]
    """The scorer takes the number of documents from the length of its list of references."""

    def __init__(self, references: list, documents: int) -> None:  # type: ignore[type-arg]
        super().__init__(references)
        self.documents = documents

    def __len__(self) -> int:
        return self.documents


class FixedStatistics:
    """Document frequencies of `corpus`, a list of tokenized references per document, counted once."""

    def __init__(self, corpus: Sequence[Sequence[str]]) -> None:
        from pycocoevalcap.cider.cider_scorer import CiderScorer

        counted = CiderScorer()
        for references in corpus:
            counted += (references[0], references)
        counted.compute_doc_freq()
        self.frequencies: Mapping[tuple[str, ...], float] = counted.document_frequency
        self.documents = len(corpus)

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """float64 [n] for tokenized answers, each with its tokenized references."""
        from pycocoevalcap.cider.cider_scorer import CiderScorer

        scorer = CiderScorer()
        for answer, texts in zip(answers, references, strict=True):
            scorer += (answer, texts)
        scorer.document_frequency.update(self.frequencies)
        scorer.crefs = _Corpus(scorer.crefs, self.documents)
        return np.asarray(scorer.compute_cider())
