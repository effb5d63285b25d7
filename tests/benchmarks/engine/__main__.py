"""Times icltool's scoring engine against the naive way on one model, in one process.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.engine --size 60m --anchors 4
    python -m tests.benchmarks.engine --size idefics-9b --device cuda --anchors 16

prints a table for each construct order and, on the last line, all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.benchmarks.engine import models
from tests.benchmarks.engine.compare import as_json, compare
from tests.benchmarks.engine.data import make_run
from tests.benchmarks.engine.sides import Setting


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(models.SIZES), default="60m")
    parser.add_argument("--device", default="auto", help="auto: a GPU where there is one")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="auto: bfloat16 on a GPU"
    )
    parser.add_argument("--anchors", type=int, default=4, help="anchors that the engine searches")
    parser.add_argument(
        "--naive-anchors", type=int, default=1, help="the first of them that the naive way searches too"
    )
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument(
        "--index", type=int, help="images of the index set; default: each is used 2.7 times, as in COCO"
    )
    parser.add_argument("--order", nargs="+", choices=("left", "right"), default=["left", "right"])
    parser.add_argument("--shots", type=int, default=2)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="times that all sides take turns")
    parser.add_argument("--no-cached", action="store_true", help="leave out the side that caches image features only")
    parser.add_argument("--in-memory", action="store_true", help="do not write and load the weights")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    name = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    device = torch.device(name)
    dtype = options.dtype if options.dtype != "auto" else ("bfloat16" if device.type == "cuda" else "float32")
    with TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "images", options.anchors, options.candidates, options.index)
        adapter = models.adapter(options.size, Path(folder) / "model", device, dtype, options.in_memory or None)
        lines = []
        for order in options.order:
            setting = Setting(order, options.shots, options.beams, options.batch_size)
            comparison = compare(adapter, run, setting, options.naive_anchors, options.rounds, not options.no_cached)
            lines.append(as_json(comparison, adapter))
            if not options.json:
                from tests.benchmarks.engine.report import show

                show(comparison, adapter)
        print(json.dumps(lines))


if __name__ == "__main__":
    main()
