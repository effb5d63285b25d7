"""LIVE and its comparison methods on the whole embedded world: captions and questions, 2,000 index images, 400 queries.

    python -m tests.benchmarks.live_world [WORKSPACE]

trains every intervention, and compares them with zero-shot, random and i2i at 1, 4 and 8 shots:
metric with 95 % intervals, prompt tokens, FLOPs and seconds per query, and a figure of accuracy against cost. It takes about
a quarter of an hour on one core and can be stopped and started again. A small edition is in the test suite
(tests/training/test_live_world.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from icltool.cli.app import run

METRICS = {"caption": "word-accuracy,cider", "vqa": "vqa-accuracy"}
#: What trains well on the world: its model is a thousandth of the published ones' size, and the examples are few.
_GRADIENTS = ("shots=8", "max_train_size=512", "batch_size=16", "accumulate=1", "epochs=20", "teacher_draws=2")
LEARNERS: dict[str, tuple[str, ...]] = {
    "live": (*_GRADIENTS, "lr=3e-2", "alpha_lr=3e-1"),
    "mimic": (*_GRADIENTS, "lr=3e-2"),
    "lora": (*_GRADIENTS, "lr=1e-3"),
    "icv-pca": ("shots=8",),
    "task-vector": ("shots=8",),
    "function-vector": ("shots=8",),
}
#: Options of the stages beside those, for another size of it all.
SIZES: dict[str, tuple[str, ...]] = {}


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(mkdtemp(prefix="icltool-live-world-"))
    for command in commands(root):
        print("icltool", *command, flush=True)
        code = run([*command, *SIZES.get(command[0], ())])
        if code:
            return code
    return 0


def commands(root: Path) -> Iterator[list[str]]:
    """Everything, in order; the stages skip what is finished."""
    home = ["--workspace", str(root)]
    yield ["prepare", "shapes", *home, "--task", "all"]
    for task, metrics in METRICS.items():
        which = [*home, "--task", task]
        yield ["embed", *which, "--encoder", "tiny-clip"]
        for learner, options in LEARNERS.items():
            yield ["train", learner, *which, "--model", "tiny-idefics", *(f"--option={option}" for option in options)]
        methods = ",".join(["zero-shot", "random", "i2i", *LEARNERS])
        yield [
            "evaluate",
            *which,
            "--model",
            "tiny-idefics",
            "--method",
            methods,
            "--shots",
            "1,4,8",
            "--metric",
            metrics,
        ]


if __name__ == "__main__":
    sys.exit(main())
