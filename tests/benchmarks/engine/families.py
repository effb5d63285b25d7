"""What sharing gains for each family of models: `python -m tests.benchmarks.engine.families [FAMILY …]`.

The prompts of a search over candidates, scored by a session that shares beginnings and images, and each prompt whole with
its images, in one process. Models are random, of the published classes: two layers of width 512 that read tiny images.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.contracts import Example, GenerationOptions, Prompt, ScoringRequest
from icltool.engine.opening import open_session, prefix_bytes
from icltool.testing.examples import COLOURS, SHAPES
from tests.benchmarks.engine import sides
from tests.benchmarks.engine.data import Run, make_run
from tests.benchmarks.engine.measure import timed
from tests.benchmarks.engine.naive import NaiveResult, naive_search
from tests.benchmarks.engine.sides import Setting
from tests.components.models import tiny

SIZES = {"hidden_size": 512, "intermediate_size": 1408, "initializer_range": 512**-0.5}
CHAT = ("gemma3", "gemma4", "gemma4-small", "llava-onevision", "mistral3", "qwen3-vl", "qwen3.5")
FLAMINGO = "openflamingo"
PLUGIN = Path(__file__).parents[3] / "plugins" / "icltool-openflamingo"


@dataclass(frozen=True)
class Gain:
    """The figures of one family. `speedup` is that of the process's own time, to which other processes add nothing;
    `difference` is the largest one of mean log-probabilities, in nats. Without a prefix cache tokens are not counted."""

    family: str
    prompts: int
    seconds: float
    whole_seconds: float
    speedup: float
    computed: int | None
    scored: int | None
    encoded: int
    images_read: int
    difference: float
    same_beams: bool


class Whole:
    """Values of whole prompts, by the adapter itself."""

    def __init__(self, adapter: Any, batch_size: int) -> None:
        self.prompt, self._adapter, self._batch_size = adapter.prompt, adapter, batch_size
        self.images = 0

    def values(self, prompts: Sequence[Prompt]) -> list[float]:
        self.images += sum(len(prompt.images) for prompt in prompts)
        return [math.exp(score.mean) for score in self._adapter.score(prompts, self._batch_size)]


class Shared:
    """Values by a session, as a search has them."""

    def __init__(self, adapter: Any, batch_size: int) -> None:
        cache = sides.IMAGE_CACHE_BYTES
        self.session = open_session(
            "caption", adapter, GenerationOptions(20), batch_size, cache, prefix_bytes=prefix_bytes(None, adapter)
        )
        self.session.keeps_prefixes = True

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> ScoringRequest:
        return ScoringRequest(query, tuple(demonstrations))

    def values(self, requests: Sequence[ScoringRequest]) -> list[float]:
        return [math.exp(score.mean) for score in self.session.target_scores(requests)]


def adapter(family: str, folder: Path) -> Any:
    """A model of this family, written and loaded as any user's is."""
    folder.mkdir()
    with mock.patch.dict(tiny.LLAMA, SIZES):
        if family != FLAMINGO:
            return ChatModel(ChatOptions(name=family, path=tiny.CHAT[family](folder), device="cpu"))
        sys.path[:0] = [str(PLUGIN), str(PLUGIN / "tests")]
        import tiny_flamingo

        return tiny_flamingo.build("mpt", folder).loaded


def short_labels(run: Run) -> Run:
    """The same images with labels of two words: a caption of usual length would be some fifty tokens of these tokenizers."""

    def short(example: Example) -> Example:
        label = f"{list(COLOURS)[example.id % len(COLOURS)]} {SHAPES[example.id % len(SHAPES)]}"
        return replace(example, text=label, label=label, references=(label,))

    return Run(tuple((short(query), tuple(map(short, pool))) for query, pool in run.anchors))


def gain(family: str, folder: Path, run: Run, setting: Setting) -> Gain:
    model = adapter(family, folder)

    def search(scorer: Any, part: Run = run, settings: Setting = setting) -> list[NaiveResult]:
        return [
            naive_search(scorer, scorer, query, pool, settings.shots, settings.beams, settings.order)
            for query, pool in part.anchors
        ]

    query, pool = run.anchors[0]
    for kind in (Whole, Shared):  # none pays for what libraries set up on first use
        search(kind(model, 2), Run(((query, pool[:2]),)), Setting(setting.order, 1, 1, 2))
    sharing, whole = Shared(model, setting.batch_size), Whole(model, setting.batch_size)
    ours, seconds, cpu_seconds = timed(model.device, lambda: search(sharing))
    plain, whole_seconds, whole_cpu_seconds = timed(model.device, lambda: search(whole))
    apart = [
        abs(math.log(a.values[ids] / value))
        for a, b in zip(ours, plain, strict=True)
        for ids, value in b.values.items()
        if ids in a.values
    ]
    session = sharing.session
    session.close()
    return Gain(
        family,
        session.prompts_scored,
        seconds,
        whole_seconds,
        whole_cpu_seconds / cpu_seconds,
        session.tokens_computed,
        session.tokens_scored,
        session.cache.encoded if session.cache is not None else 0,
        whole.images,
        max(apart),
        [a.beams for a in ours] == [b.beams for b in plain],
    )


def line(figures: Gain) -> str:
    f = figures
    tokens = "every token" if f.computed is None else f"{f.computed:,} of {f.scored:,} tokens"
    return (
        f"{f.family}: {f.speedup:.1f} times as fast ({f.prompts} prompts: {f.whole_seconds:.1f} s whole, {f.seconds:.1f} s "
        f"shared); {tokens} computed; {f.encoded} images encoded instead of {f.images_read:,}; "
        f"largest difference {f.difference:.0e}; {'the same' if f.same_beams else 'OTHER'} beams"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine.families", description=__doc__)
    parser.add_argument("families", nargs="*", default=[*CHAT, FLAMINGO])
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--shots", type=int, default=2)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        run = short_labels(make_run(Path(folder) / "images", 2, arguments.candidates))
        for family in arguments.families:
            figures = gain(family, Path(folder) / family, run, Setting("left", arguments.shots, 3, 16))
            print(line(figures), flush=True)
            print(json.dumps(asdict(figures)), flush=True)


if __name__ == "__main__":
    main()
