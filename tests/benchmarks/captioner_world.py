"""Captioners trained from scratch on the embedded world: words right, styles followed, SCST against its starting point.

    python -m tests.benchmarks.captioner_world [WORKSPACE]

trains the small BLIP-2 and, where icltool-ofa is installed, the small OFA by their profiles, on plain captions and on captions
in styles, and prints seconds of training and metrics on 400 and 1,200 queries. It takes about ten minutes on two quiet cores
and can be stopped and started again. A small edition is in the test suite (tests/training/test_captioner_world.py).
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from icltool.cli.app import run
from icltool.store.evaluations import read_evaluation

PROFILES = ("captioner-shapes-blip2", "captioner-shapes-ofa")
TASKS = ("caption", "style")
METRICS = ("word-accuracy", "cider")
#: Options of the stages beside those, for another size of it all.
SIZES: dict[str, tuple[str, ...]] = {}


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(mkdtemp(prefix="icltool-captioner-world-"))
    if code := run(
        ["prepare", "shapes", "--workspace", str(root), "--task", "all", "--quiet", *SIZES.get("prepare", ())]
    ):
        return code
    rows = []
    for profile in PROFILES if find_spec("icltool_ofa") else PROFILES[:1]:
        for task in TASKS:
            home = ["--workspace", str(root), "--profile", profile, "--task", task]
            began = time.monotonic()
            if code := run(["train", *home, *SIZES.get("train", ())]):
                return code
            rows += measured(root, home, f"{profile}, {task}", time.monotonic() - began)
    print(f"\n{'training':<40}{'method':<12}{'seconds':>8}" + "".join(f"{name:>16}" for name in METRICS))
    for row in rows:
        print(row)
    return 0


def measured(root: Path, home: list[str], name: str, seconds: float) -> list[str]:
    """A line for each method of the profile's evaluation."""
    run(["evaluate", *home, "--metric", ",".join(METRICS), "--no-cost", "--quiet"])
    newest = max((root / "evaluations").iterdir(), key=lambda folder: folder.stat().st_mtime)
    return [
        f"{name:<40}{result.method:<12}{seconds:>8.0f}"
        + "".join(f"{result.metrics[metric].mean:>16.1f}" for metric in METRICS)
        for result in read_evaluation(newest).results
    ]


if __name__ == "__main__":
    sys.exit(main())
