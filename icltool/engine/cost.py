"""The cost of a search, before it starts: the number of prompts, and seconds from a short measurement on this device."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icltool.contracts import CountsTokens, Example, Scorer, ScoringRequest
from icltool.engine.beam import SearchOptions, prompts_by_step
from icltool.engine.session import Session

if TYPE_CHECKING:
    from torch import Tensor

#: Prompts of each length that are timed, at most, and seconds after which no further batch is timed.
SAMPLE, PATIENCE = 128, 30.0
#: Prompts whose tokens are counted, for each length.
COUNTED = 32


@dataclass(frozen=True)
class StepCost:
    """Prompts with `shots` demonstrations: their number, the number that was timed, and seconds per prompt.

    `seconds` excludes image encoding if the session caches image features. `tokens` is the mean number of tokens of a prompt
    and its target, `computed` the mean number that the model computed; the others were shared. None if the model counts no
    tokens.
    """

    shots: int
    prompts: int
    timed: int
    seconds: float
    tokens: float | None
    computed: float | None = None


@dataclass(frozen=True)
class ImageCost:
    """Seconds and bytes of features per image; zeros if images are encoded within each prompt."""

    seconds: float
    feature_bytes: float


def measure(
    scorer: Scorer,
    session: Session,
    options: SearchOptions,
    pools: Sequence[tuple[Example, Sequence[Example]]],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[StepCost], ImageCost]:
    """Times real prompts of every length in the search, on (anchor, candidates) pairs, as the search runs them: step by step,
    with a shared prefix cache.

    Each step runs twice: the first run warms up and encodes the images, the second is timed. The counts are for a single
    anchor with pools of this size.
    """
    counts = prompts_by_step(options, len(pools[0][1]))
    requests_by_shots = [
        _requests(pools, options, shots, max(1, SAMPLE // prompts)) for shots, prompts in enumerate(counts)
    ]
    session.reset()
    firsts, image_seconds, started = [], 0.0, clock()
    for shots, requests in enumerate(requests_by_shots):
        if clock() - started > PATIENCE:
            requests_by_shots[shots] = requests = requests[: max(1, len(requests) // 8)]
        encoded = _encoded(session)
        firsts.append((_seconds(scorer, session, requests, shots < options.shots, clock), _encoded(session) - encoded))
    session.reset()
    steps = []
    for shots, (requests, (first, encoded)) in enumerate(zip(requests_by_shots, firsts, strict=True)):
        before, scored = session.tokens_computed, session.tokens_scored
        seconds = _seconds(scorer, session, requests, shots < options.shots, clock)
        computed = None if before is None else ((session.tokens_computed or 0) - before) / len(requests)
        if shots == 1 and encoded:
            image_seconds = max(first - seconds, 0.0) / encoded
        # counted by the session where it can: answers that are generated have no target
        mean_tokens = None if scored is None else ((session.tokens_scored or 0) - scored) / len(requests)
        tokens = _mean_tokens(session, requests) if mean_tokens is None else mean_tokens
        steps.append(StepCost(shots, counts[shots], len(requests), seconds / len(requests), tokens, computed))
    if not _encoded(session) or session.cache is None:
        return steps, ImageCost(0.0, 0.0)
    one = next(image for query, pool in pools for example in (query, *pool) for image in example.images)
    return steps, ImageCost(image_seconds, _feature_bytes(session.cache.features([one])))


def cost_rows(
    steps: Sequence[StepCost], image: ImageCost, anchors: int, images: int, cache_bytes: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """(table rows, notes) for this number of anchors and distinct images.

    If the image features do not fit into the cache, images are encoded again. How often depends on the order of the anchors,
    so the note only states the fact.
    """
    rows: list[dict[str, Any]] = []
    seconds = image.seconds * images
    for step in steps:
        prompts = step.prompts * anchors
        tokens = None if step.tokens is None else round(step.tokens * prompts)
        seconds += step.seconds * prompts
        rows.append(
            {
                "prompts with": f"{step.shots} shot{'s' * (step.shots != 1)}",
                "prompts": prompts,
                "tokens": tokens,
                "tokens computed": None if step.computed is None else round(step.computed * prompts),
                "prompts per second": round(1 / step.seconds, 1) if step.seconds else None,
                "expected time": duration(step.seconds * prompts),
            }
        )
    prompts = sum(step.prompts for step in steps) * anchors
    known = [step.tokens * step.prompts * anchors for step in steps if step.tokens is not None]
    ran = [step.computed * step.prompts * anchors for step in steps if step.computed is not None]
    total = {
        "prompts with": "all",
        "prompts": prompts,
        "tokens": round(sum(known)) if len(known) == len(steps) else None,
        "tokens computed": round(sum(ran)) if len(ran) == len(steps) else None,
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
    """An approximate duration in words: "45 s", "12 min", "3 h 20 min", "4 d 6 h"."""
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
    """The peak memory of this process so far: GPU memory if a GPU is in use, else resident memory."""
    import resource  # not on every system

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak = sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        return f"peak GPU memory in the measurement: {peak / 2**30:.1f} GiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"peak memory in the measurement: {peak / 2**30:.1f} GiB"


def _requests(
    pools: Sequence[tuple[Example, Sequence[Example]]], options: SearchOptions, shots: int, anchors: int
) -> list[ScoringRequest]:
    """The requests of the step that forms sequences of `shots` demonstrations, for the first `anchors` anchors: each beam of
    the previous step, here a run of candidates, with every candidate that it does not contain."""
    if not shots:
        return [ScoringRequest(query, ()) for query, _ in pools]
    requests = []
    for query, pool in pools[:anchors]:
        beams = 1 if shots == 1 else min(options.beam_size, len(pool))
        for beam in range(beams):
            held = [(beam + k) % len(pool) for k in range(shots - 1)]
            for new in range(len(pool)):
                if new not in held:
                    order = (*held, new)
                    rows = order if options.construct_order == "left" else order[::-1]
                    requests.append(ScoringRequest(query, tuple(pool[r] for r in rows)))
    return requests


def _encoded(session: Session) -> int:
    return 0 if session.cache is None else session.cache.encoded


def _seconds(
    scorer: Scorer, session: Session, requests: Sequence[ScoringRequest], keep: bool, clock: Callable[[], float]
) -> float:
    start = clock()
    session.keeps_prefixes = keep
    scorer.evaluate(session, requests)
    return clock() - start


def _feature_bytes(features: Mapping[str, Tensor]) -> float:
    sizes = [int(f.numel() * f.element_size()) for f in features.values()]
    return sum(sizes) / len(sizes)


def _mean_tokens(session: Session, requests: Sequence[ScoringRequest]) -> float | None:
    """The mean number of tokens of prompt and target, image tokens included; None if the adapter counts none."""
    model = session.model
    if not isinstance(model, CountsTokens):
        return None
    some = requests[:COUNTED]
    prompts = [model.prompt(session.task, r.demonstrations, r.query) for r in some]
    return sum(model.token_counts(prompts)) / len(prompts)
