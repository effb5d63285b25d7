"""Stands in for METEOR's Java program in tests: `python -S small_meteor.py RECORDING`, with the same lines in and out.

Texts that RECORDING has are aligned as the real program aligned them, others by equal words alone, in order. Scores are
METEOR's formula with the settings of the caption evaluation, which gives the program's own figures to the last digit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

FUNCTION = frozenset(["a", "an", "and", "at", "in", "is", "it", "of", "on", "the", "to", "with"])
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
#: Of equal words, stems, synonyms and paraphrases.
STAGES = (1.0, 0.6, 0.8, 0.6)


def weighted(content: float, function: float) -> float:
    return DELTA * content + (1 - DELTA) * function


def score(row: Sequence[float]) -> float:
    """METEOR of one answer's statistics."""
    length, other_length, function, other_function, *rest = row
    stages, (chunks, matched, other_matched) = rest[:-3], rest[-3:]
    matches = sum(w * weighted(stages[4 * i], stages[4 * i + 2]) for i, w in enumerate(STAGES))
    if not matches:
        return 0.0
    other_matches = sum(w * weighted(stages[4 * i + 1], stages[4 * i + 3]) for i, w in enumerate(STAGES))
    precision = matches / weighted(length - function, function)
    recall = other_matches / weighted(other_length - other_function, other_function)
    mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
    perfect = matched == length and other_matched == other_length and chunks == 1
    fragmentation = 0.0 if perfect else chunks / ((matched + other_matched) / 2)
    return mean * (1 - GAMMA * fragmentation**BETA)


def aligned(answer: str, reference: str) -> list[float]:
    """The statistics of an answer beside one reference."""
    words, others = answer.split(), reference.split()
    places: list[int | None] = []
    free = list(range(len(others)))
    for word in words:
        place = next((p for p in free if others[p] == word), None)
        places.append(place)
        if place is not None:
            free.remove(place)
    met = [(n, place) for n, place in enumerate(places) if place is not None]
    chunks = sum(1 for k, (n, p) in enumerate(met) if k == 0 or met[k - 1] != (n - 1, p - 1))
    function = sum(words[n] in FUNCTION for n, _ in met)
    content = len(met) - function
    lengths = [len(words), len(others), sum(w in FUNCTION for w in words), sum(w in FUNCTION for w in others)]
    return [*lengths, content, content, function, function, *[0] * 12, chunks, len(met), len(met)]


def statistics(request: str) -> str:
    """Those of the answer beside the reference that fits it best."""
    _, *references, answer = request.split(" ||| ")
    return " ".join(str(float(n)) for n in max((aligned(answer, text) for text in references), key=score))


def main() -> None:
    recorded: dict[str, str] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["statistics"]
    for line in iter(sys.stdin.readline, ""):
        request = line.rstrip("\n")
        if request.startswith("SCORE"):
            print(recorded.get(request) or statistics(request), flush=True)
        else:
            rows = [[float(n) for n in row.split()] for row in request.split(" ||| ")[1:]]
            total = [sum(column) for column in zip(*rows, strict=True)]
            print(*(repr(score(row)) for row in (*rows, total)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
