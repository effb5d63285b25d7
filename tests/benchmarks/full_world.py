"""The selectors on the whole embedded world: 2,000 index images, all of them anchors, 400 queries; captions and VQA.

    python tests/benchmarks/full_world.py [WORKSPACE]

takes about an hour on two cores, most of it in generate and evaluate, can be stopped and started again, and prints for
each task the table of methods and shots with the differences between methods. A pointer selector that was trained there
is then used, without training, on index sets of other images: as many, half, and twice as many. A small edition is in
the test suite (test_selection.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from icltool.cli.app import run
from icltool.store.workspace import Workspace

#: A task, its variant of the pointer's inputs (a caption query's text would be its own reference), and its metrics.
TASKS = {
    "caption": ("query_img_icd_img_text", "word-accuracy,cider"),
    "vqa": ("query_img_text_icd_img_text", "vqa-accuracy"),
}
#: Other index sets: options of `prepare shapes`.
OTHERS = {
    "other images": {"index_images": 2000},
    "half as many": {"index_images": 1000},
    "twice as many": {"index_images": 4000},
}
#: Options of the stages beside those, for another size of it all.
SIZES: dict[str, tuple[str, ...]] = {}


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(mkdtemp(prefix="icltool-full-world-"))
    for command in commands(root):
        print("icltool", *command, flush=True)
        code = run([*command, *SIZES.get(command[0], ())])
        if code:
            return code
    return 0


def commands(root: Path) -> Iterator[list[str]]:
    """Everything, in order; the stages skip what is finished. One at a time: the later ones name what the earlier made."""
    home = ["--workspace", str(root / "home")]
    yield ["prepare", "shapes", *home]
    for task, (variant, metrics) in TASKS.items():
        which = ["--task", task]
        yield ["embed", *home, *which, "--encoder", "tiny-clip"]
        yield ["generate", *home, *which, "--profile", "demo", "--anchors", "3000", "--candidates", "24"]
        yield ["train", "lever-lm", *home, *which, "--profile", "demo"]
        yield ["train", "pointer", *home, *which, "--option", f"variant={variant}"]
        yield evaluation(root / "home", task, metrics, "zero-shot,random,i2i,i2t,t2t,t2i,lever-lm,pointer")
    for number, options in enumerate(OTHERS.values(), 1):
        place = root / f"other-{number}"
        away = ["--workspace", str(place)]
        chosen = [f"--option={key}={value}" for key, value in {**options, "renderings": number}.items()]
        yield ["prepare", "shapes", *away, *chosen]
        for task, (_, metrics) in TASKS.items():
            yield ["embed", *away, "--task", task, "--encoder", "tiny-clip"]
            yield evaluation(place, task, metrics, "random,i2i,pointer", trained_in=root / "home")


def evaluation(place: Path, task: str, metrics: str, methods: str, trained_in: Path | None = None) -> list[str]:
    """The command that compares `methods` at 2, 4 and 8 shots in the workspace `place`."""
    command = [
        "evaluate",
        "--workspace",
        str(place),
        "--task",
        task,
        "--model",
        "tiny-idefics",
        "--encoder",
        "tiny-clip",
    ]
    command += ["--shots", "2,4,8", "--method", methods, "--metric", metrics]
    if trained_in is not None:
        folder = Workspace(trained_in).newest_checkpoint("pointer", "shapes", task)
        command += ["--method-option", f"pointer.folder={folder}"]
    return command


if __name__ == "__main__":
    sys.exit(main())
