"""Makes the embedded world's weights anew: `python -m tests.world.recipe.train --out DIR`.

The recipes are seeded; on two cores that other work shared the first two took 40 minutes together. tiny-smolvlm reads the
package easy-vqa.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from icltool.contracts import Progress
from tests.world.recipe.easy_episodes import installed_pool
from tests.world.recipe.train_clip import ClipRecipe, Pair, train_clip
from tests.world.recipe.train_idefics import Recipe, train
from tests.world.recipe.train_smolvlm import SmolRecipe, train_smolvlm


def main(arguments: list[str] | None = None) -> None:
    """Trains `tiny-idefics`, `tiny-clip`, `tiny-smolvlm` or all of them, and prints how it goes."""
    parser = argparse.ArgumentParser(prog="python -m tests.world.recipe.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives a folder of each model")
    parser.add_argument(
        "--what",
        choices=["all", "tiny-idefics", "tiny-clip", "tiny-smolvlm"],
        default="all",
        help="which model (default: all)",
    )
    defaults = f"{Recipe().steps}, {ClipRecipe().steps} and {SmolRecipe().steps}"
    parser.add_argument("--steps", type=int, help=f"steps (default: {defaults})")
    parser.add_argument("--seed", type=int, default=0, help="decides initialisation and episodes (default: 0)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda … (default: cpu)")
    chosen = parser.parse_args(arguments)
    steps = {} if chosen.steps is None else {"steps": chosen.steps}
    if chosen.what in ("all", "tiny-idefics"):
        recipe = replace(Recipe(seed=chosen.seed), **steps)
        train(chosen.out / "tiny-idefics", recipe, chosen.device, reporter("tiny-idefics"))
    if chosen.what in ("all", "tiny-clip"):
        clip = replace(ClipRecipe(seed=chosen.seed), **steps)
        train_clip(chosen.out / "tiny-clip", world_pairs(), clip, chosen.device, reporter("tiny-clip"))
    if chosen.what in ("all", "tiny-smolvlm"):
        smol = replace(SmolRecipe(seed=chosen.seed), **steps)
        train_smolvlm(chosen.out / "tiny-smolvlm", installed_pool(), smol, chosen.device, reporter("tiny-smolvlm"))
    print(f"written: {chosen.out}")


def reporter(name: str) -> Callable[[int, int, dict[str, float]], None]:
    """Prints a line every ten seconds, and the last."""
    began, last = time.monotonic(), [0.0]

    def report(step: int, steps: int, figures: dict[str, float]) -> None:
        now = time.monotonic() - began
        if now - last[0] < 10 and step != steps:
            return
        last[0] = now
        left = now / step * (steps - step)
        values = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
        print(f"{name}: step {step:,} of {steps:,}, {values}, {left:,.0f} s left", flush=True)

    return report


def world_pairs() -> list[Pair]:
    """Image-caption pairs of the default world's index split, rendered and read as any data set is."""
    from icltool.components.datasets.shapes import ShapesOptions, ShapesReader
    from icltool.execution.progress import for_terminal

    progress: Progress = for_terminal(quiet=True, verbose=False)
    pairs: list[Pair] = []
    with TemporaryDirectory() as scratch:
        for split in ShapesReader(ShapesOptions()).read(None, "caption", Path(scratch), progress):
            if split.name == "train":
                # images are kept in memory by train_clip, so that the files may go
                pairs = [Pair(Path(e.image).read_bytes(), e.references, e.group) for e in split.examples]
    return pairs


if __name__ == "__main__":
    main()
