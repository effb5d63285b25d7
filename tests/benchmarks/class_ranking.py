"""What ranking many class names through the prefix tree gains: `python -m tests.benchmarks.class_ranking [--classes 1000]`.

Queries with all names as choices, ranked by a session that computes what prompts share once, and each name with its whole
prompt, in one process. The model is tiny-idefics; the names are made of up to five words, some the beginning of others.
"""

from __future__ import annotations

import argparse
import resource
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory

from icltool.components.tasks import task_named
from icltool.contracts import Example, GenerationOptions, ScoringRequest
from icltool.engine.choices import rank_choices
from icltool.engine.opening import open_session, prefix_bytes
from icltool.plugin.manager import component
from icltool.testing.examples import COLOURS, SHAPES
from tests.benchmarks.engine import sides
from tests.benchmarks.engine.data import make_run
from tests.benchmarks.engine.measure import timed


@dataclass(frozen=True)
class Ranking:
    """The figures: seconds for all queries by each side, and the largest difference of a mean log-probability in nats."""

    names: int
    seconds: float
    whole_seconds: float
    computed: int
    scored: int
    difference: float
    same_answers: bool


def names(count: int) -> tuple[str, ...]:
    """So many names, no two alike."""
    words = [*COLOURS, *SHAPES]
    many = (" ".join(parts) for length in range(1, 6) for parts in product(words, repeat=length))
    return tuple(islice(many, count))


def compare(folder: Path, classes: int, queries: int, shots: int, batch_size: int = 16) -> Ranking:
    choices = names(classes)
    [(query, pool), *others] = make_run(folder, queries, max(shots, 1)).anchors

    def labelled(example: Example) -> Example:
        label = choices[example.id % classes]
        return replace(example, text="", label=label, references=(label,), choices=choices)

    requests = [
        ScoringRequest(labelled(one), tuple(map(labelled, near[:shots]))) for one, near in [(query, pool), *others]
    ]
    model = component("models", "tiny-idefics", device="cpu")
    task = task_named("classification").without_text()
    session = open_session(
        task, model, GenerationOptions(5), batch_size, sides.IMAGE_CACHE_BYTES, prefix_bytes=prefix_bytes(None, model)
    )
    rank_choices(session, requests[:1])  # neither side pays for what libraries set up on first use
    before = session.tokens_computed, session.tokens_scored
    shared, seconds, _ = timed(model.device, lambda: rank_choices(session, requests))
    counts = (session.tokens_computed or 0) - (before[0] or 0), session.tokens_scored - before[1]

    def whole() -> list[dict[str, float]]:
        prompts = [
            [model.prompt(task, r.demonstrations, replace(r.query, label=name)) for name in choices] for r in requests
        ]
        scores = [model.score(of_request, batch_size) for of_request in prompts]
        return [dict(zip(choices, (score.mean for score in one), strict=True)) for one in scores]

    plain, whole_seconds, _ = timed(model.device, whole)
    session.close()
    apart = max(abs(a[name] - b[name]) for a, b in zip(shared, plain, strict=True) for name in choices)
    same = all(max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in zip(shared, plain, strict=True))
    return Ranking(classes, seconds, whole_seconds, *counts, apart, same)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.class_ranking", description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--shots", type=int, default=4)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        f = compare(Path(folder), arguments.classes, arguments.queries, arguments.shots)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{f.names:,} names: {f.whole_seconds / f.seconds:.1f} times as fast ({f.whole_seconds:.1f} s whole, {f.seconds:.1f} s "
        f"through the tree); {f.computed:,} of {f.scored:,} tokens computed; largest difference {f.difference:.0e}; "
        f"{'the same' if f.same_answers else 'OTHER'} answers; peak {memory:.2f} GB"
    )


if __name__ == "__main__":
    main()
