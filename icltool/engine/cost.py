"""What a search will cost, before it starts: prompts by arithmetic, seconds from a short measurement on this device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icltool.contracts import CountsTokens, Example, Scorer, ScoringRequest
from icltool.engine.beam import SearchOptions, prompts_by_step
from icltool.engine.session import Session

#: Prompts of each length that are timed, at most, and seconds after which no further batch is timed.
SAMPLE, PATIENCE = 128, 30.0
#: Prompts whose tokens are counted, for each length.
COUNTED = 32


@dataclass(frozen=True)
class StepCost:
    """Prompts with `shots` demonstrations: how many there will be, how many were timed, and seconds for each of them.

    `seconds` holds no image encoding where the session keeps image features. `tokens` is the mean number of tokens of a
    prompt and its target; None where the model does not tell.
    """

    shots: int
    prompts: int
    timed: int
    seconds: float
    tokens: float | None


@dataclass(frozen=True)
class ImageCost:
    """Seconds and bytes of features for one image; zeros where images are encoded within each prompt."""

    seconds: float
    feature_bytes: float


def measure(
    scorer: Scorer,
    session: Session,
    options: SearchOptions,
    pools: Sequence[tuple[Example, Sequence[Example]]],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[StepCost], ImageCost]:
    """Times real prompts of every length that the search has, on (anchor, candidates) pairs.

    Each length's prompts are evaluated twice: the first time warms up and encodes the images, the second is counted. The
    counts are those of a single anchor with pools of this size.
    """
    counts = prompts_by_step(options, len(pools[0][1]))
    steps = []
    image = ImageCost(0.0, 0.0)
    started = clock()
    for shots, prompts in enumerate(counts):
        requests = _requests(pools, shots, min(SAMPLE, max(prompts, session.batch_size)))
        if clock() - started > PATIENCE:
            requests = requests[: max(1, len(requests) // 8)]
        encoded = 0 if session.cache is None else session.cache.encoded
        first = _seconds(scorer, session, requests, clock)
        again = _seconds(scorer, session, requests, clock)
        if shots == 1 and session.cache is not None and session.cache.encoded > encoded:
            seconds = max(first - again, 0.0) / (session.cache.encoded - encoded)
            image = ImageCost(seconds, _feature_bytes(session.cache.features([pools[0][0].image])))
        steps.append(StepCost(shots, prompts, len(requests), again / len(requests), _mean_tokens(session, requests)))
    return steps, image


def cost_rows(
    steps: Sequence[StepCost], image: ImageCost, anchors: int, images: int, cache_bytes: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """(table rows, remarks) for so many anchors and distinct images.

    Where the image features do not fit into the cache, images are encoded again; how often depends on the order of the
    anchors, so the remark says only that it happens.
    """
    rows: list[dict[str, Any]] = []
    seconds = image.seconds * images
    for step in steps:
        prompts = step.prompts * anchors
        tokens = None if step.tokens is None else round(step.tokens * prompts)
        seconds += step.seconds * prompts
        rows.append(
            {
                "prompts with": f"{step.shots} ICDs",
                "prompts": prompts,
                "tokens": tokens,
                "prompts per second": round(1 / step.seconds, 1) if step.seconds else None,
                "expected time": duration(step.seconds * prompts),
            }
        )
    prompts = sum(step.prompts for step in steps) * anchors
    known = [step.tokens * step.prompts * anchors for step in steps if step.tokens is not None]
    total = {
        "prompts with": "all",
        "prompts": prompts,
        "tokens": round(sum(known)) if len(known) == len(steps) else None,
    }
    rows.append({**total, "prompts per second": round(prompts / seconds, 1), "expected time": duration(seconds)})
    features = image.feature_bytes * images
    notes = [f"{images:,} images" + (f", {image.seconds * 1000:.1f} ms to encode one" if image.feature_bytes else "")]
    if image.feature_bytes:
        notes[0] += f", {features / 2**20:,.0f} MB of features"
        if features > cache_bytes:
            notes.append(
                f"the features do not fit into the image cache of {cache_bytes / 2**20:,.0f} MB: images will be encoded "
                f"again and again; --image-cache-mb {int(features / 2**20) + 1} keeps all"
            )
    notes.append(memory_note())
    return rows, notes


def duration(seconds: float) -> str:
    """A rough time for people: "45 s", "12 min", "3 h 20 min", "4 d 6 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 99:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min"
    days, rest = divmod(hours, 24)
    return f"{days} d {rest} h"


def memory_note() -> str:
    """Peak memory of this process so far: of the GPU where one is in use, else resident."""
    import resource
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak = sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        return f"peak GPU memory in the measurement: {peak / 2**30:.1f} GiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"peak memory in the measurement: {peak / 2**30:.1f} GiB"


def _requests(pools: Sequence[tuple[Example, Sequence[Example]]], shots: int, count: int) -> list[ScoringRequest]:
    """`count` distinct-enough requests: anchors in turn, runs of `shots` candidates that start at every place."""
    found = []
    for number in range(count):
        query, candidates = pools[number % len(pools)]
        start = number // len(pools)
        rows = (start + np.arange(shots)) % len(candidates)
        found.append(ScoringRequest(query, tuple(candidates[int(r)] for r in rows)))
    return found


def _seconds(scorer: Scorer, session: Session, requests: Sequence[ScoringRequest], clock: Callable[[], float]) -> float:
    start = clock()
    scorer.evaluate(session, requests)
    return clock() - start


def _feature_bytes(features: Mapping[str, Any]) -> float:
    sizes = [int(f.numel() * f.element_size()) for f in features.values()]
    return sum(sizes) / len(sizes)


def _mean_tokens(session: Session, requests: Sequence[ScoringRequest]) -> float | None:
    """Mean tokens of prompt and target, those of images included, where the adapter can count them."""
    model = session.model
    if not isinstance(model, CountsTokens):
        return None
    some = requests[:COUNTED]
    prompts = [model.prompt(session.task, r.demonstrations, r.query) for r in some]
    return sum(model.token_counts(prompts)) / len(prompts)
