"""What the caption metrics share: answers and references, tokenized as the COCO evaluation does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from icltool.components.metrics.ptb import PTBTokenizer


def tokenized(
    tokenizer: PTBTokenizer, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Both as tokens joined by single spaces. ValueError when the lists differ in length."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
    texts = [*predictions, *(text for answers in references for text in answers)]
    tokens: Iterator[str] = iter(tokenizer.tokenize(texts))
    return [next(tokens) for _ in predictions], [[next(tokens) for _ in answers] for answers in references]
