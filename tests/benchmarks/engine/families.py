"""What sharing gains for each family of models: `python -m tests.benchmarks.engine.families [FAMILY …]`.

A search over candidates by icltool's engine, and the same search with every prompt computed whole and every image read
each time, in one process. Models are random, of the published classes: two layers of width 512 that read tiny images.
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
from icltool.contracts import Example, Prompt
from icltool.testing.examples import COLOURS, SHAPES
from tests.benchmarks.engine import sides
from tests.benchmarks.engine.data import Run, make_run
from tests.benchmarks.engine.measure import timed
from tests.benchmarks.engine.naive import naive_search
from tests.benchmarks.engine.sides import Setting
from tests.components.models import tiny

#: Weights have a standard deviation of 1 / sqrt(width): with larger ones every label is so improbable that candidates tie.
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


class WholePrompts:
    """Values by the adapter itself, without a session."""

    def __init__(self, adapter: Any, batch_size: int) -> None:
        self._adapter, self._batch_size = adapter, batch_size
        self.images = 0

    def values(self, prompts: Sequence[Prompt]) -> list[float]:
        self.images += sum(len(prompt.images) for prompt in prompts)
        return [math.exp(score.mean) for score in self._adapter.score(prompts, self._batch_size)]


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
    device = model.device

    def whole(part: Run, scorer: WholePrompts) -> dict[int, Any]:
        return {
            query.id: naive_search(scorer, model, query, pool, setting.shots, setting.beams, setting.order)
            for query, pool in part.anchors
        }

    query, pool = run.anchors[0]
    small: Run = Run(((query, pool[:2]),))
    one = Setting(setting.order, 1, 1, 2)
    sides.engine(model, small, one)
    model.score([model.prompt("caption", pool[:1], query)], 1)
    ours = sides.engine(model, run, setting)
    scorer = WholePrompts(model, setting.batch_size)
    plain, seconds, cpu_seconds = timed(device, lambda: whole(run, scorer))
    apart = [abs(math.log(ours.values[a][ids] / value)) for a, r in plain.items() for ids, value in r.values.items()]
    return Gain(
        family,
        ours.prompts,
        ours.seconds,
        seconds,
        cpu_seconds / ours.cpu_seconds,
        ours.counters.get("computed"),
        ours.counters.get("scored"),
        ours.encoded,
        scorer.images,
        max(apart),
        all(ours.beams[a] == r.beams for a, r in plain.items()),
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
