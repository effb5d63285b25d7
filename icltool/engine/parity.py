"""Checks, under untested releases of other packages, that a model gives the same results with its caches as without.

The name and the format of caches have changed between minor releases of transformers. A cache that is ignored or misread
gives wrong scores without an error; two short prompts reveal it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.contracts import Example, Model, ScoringRequest, TargetScore
from icltool.errors import IclError
from icltool.releases import DECISIVE, tested_range, untested

if TYPE_CHECKING:
    from icltool.engine.session import Session

#: Log-probabilities of a target may differ by this share, and by this many nats: in float32, and in half precision.
TOLERANCES = {"float32": (1e-4, 1e-3), "half": (2e-2, 0.1)}
#: Tokens of an answer that are compared, at most.
LENGTH = 5


def parity_note(model: Model, open_with_caches: Callable[[], Session]) -> str:
    """One sentence if the caches of `model` change its results or make it fail; "" if not, or if all releases are tested.
    `open_with_caches` opens a session with caches."""
    releases = {name: release for name, release in untested().items() if name in DECISIVE}
    if not releases:
        return ""
    with tempfile.TemporaryDirectory(prefix="icltool-parity-") as folder, open_with_caches() as session:
        fault = _fault(model, session, _examples(Path(folder)))
    if not fault:
        return ""
    named = " and ".join(f"{name} {release} (tested: {tested_range(name)})" for name, release in releases.items())
    return f"{named}: {fault}; caches are switched off, so that this runs more slowly, with the right values"


def _fault(model: Model, session: Session, examples: Sequence[Example]) -> str:
    """How scores and answers with caches differ from those without, in words; "" if they do not."""
    session.generation = replace(session.generation, max_new_tokens=min(LENGTH, session.generation.max_new_tokens))
    session.keeps_prefixes = True  # the answers reuse the prefix cache of the scores
    plain = session.plain()
    try:
        requests = _requests(examples)
        expected, answers = plain.target_scores(requests), plain.answers(requests)
    except IclError:  # a model that reads no images
        requests = _requests([replace(example, image="") for example in examples])
        expected, answers = plain.target_scores(requests), plain.answers(requests)
    try:
        scores, cached = session.target_scores(requests), session.answers(requests)
    except Exception as error:  # under a foreign release it may be anything
        message = " ".join(str(error).split()) or "no message"
        return f"with caches the model fails ({type(error).__name__}: {message[:120]})"
    half = str(getattr(model, "dtype", "float32")).rpartition(".")[2] != "float32"
    worst = max(_difference(a, b, half) for a, b in zip(scores, expected, strict=True))
    if not worst <= 1.0:
        pairs = ", ".join(f"{a.log_prob:.4f} for {b.log_prob:.4f}" for a, b in zip(scores, expected, strict=True))
        return f"with caches the log-probabilities of two targets are {pairs}"
    equal = [a == b for a, b in zip(cached, answers, strict=True)]
    if not (any(equal) if half else all(equal)):  # in half precision rounding may decide one of them
        return f"with caches the answers are {cached}, not {answers}"
    return ""


def _requests(examples: Sequence[Example]) -> list[ScoringRequest]:
    """The first example as the demonstration of each other."""
    return [ScoringRequest(query, (examples[0],)) for query in examples[1:]]


def _difference(score: TargetScore, expected: TargetScore, half: bool) -> float:
    """The difference in units of the tolerance; infinite if the figures cannot be compared."""
    share, nats = TOLERANCES["half" if half else "float32"]
    if score.tokens != expected.tokens or not math.isfinite(score.log_prob - expected.log_prob):
        return math.inf
    return abs(score.log_prob - expected.log_prob) / (nats + share * abs(expected.log_prob))


def _examples(folder: Path) -> list[Example]:
    """A demonstration and two queries, with all that any task asks for."""
    from PIL import Image

    rng = np.random.default_rng(0)
    examples = []
    for k, colour in enumerate(("red", "green", "blue")):
        path = folder / f"{colour}.png"
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        question = "Which colour is it?"
        answers, choices = (colour,) * 10, ("red", "green", "blue")
        examples.append(
            Example(k, str(path), k, question, colour, answers, question=question, choices=choices, style="Cheerful")
        )
    return examples
