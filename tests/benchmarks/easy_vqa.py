"""Selection on easy-VQA's test questions: three lexicons, 500 questions of each, with the packaged models.

    python -m tests.benchmarks.easy_vqa [WORKSPACE [MINILM]]

needs the package easy-vqa, can be stopped and started again, and prints for each lexicon the table of methods and shots.
With MINILM, the folder of the weights of all-MiniLM-L6-v2, questions are compared by it, else by tiny-clip.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from icltool.cli.app import run

LEXICONS = (1, 2, 3)
PROFILE = ["--profile", "easy-vqa"]
VARIANT = "query_img_text_icd_img_text"


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(mkdtemp(prefix="icltool-easy-vqa-"))
    minilm = sys.argv[2] if len(sys.argv) > 2 else ""
    for lexicon in LEXICONS:
        for command in commands(root, lexicon, minilm):
            print("icltool", *command, flush=True)
            if code := run(command):
                return code
    return 0


def commands(root: Path, lexicon: int, minilm: str) -> Iterator[list[str]]:
    """Everything for one lexicon, in order; the stages skip what is finished."""
    name = f"easy-vqa-{lexicon}"
    home = ["--workspace", str(root)]
    data = [*home, *PROFILE, "--dataset", name]
    yield ["prepare", "easy-vqa", *home, "--name", name, "--option", f"lexicon={lexicon}"]
    yield ["embed", *data]
    if minilm:
        yield ["embed", *data, "--encoder", "minilm", "--encoder-path", minilm]
    yield ["generate", *data]
    yield ["train", "lever-lm", *data]
    yield ["train", "pointer", *data, "--option", f"variant={VARIANT}", "--option", "dropout=0.3"]
    texts, images = ("t2t@minilm" if minilm else "t2t@tiny-clip"), "i2i@tiny-clip"
    both = f"{texts}+{images}:{images}.pool=400"
    methods = ("zero-shot", "random", "i2i", texts, both, "lever-lm", "pointer")
    yield ["evaluate", *data, "--encoder", "tiny-clip", *(word for method in methods for word in ("--method", method))]


if __name__ == "__main__":
    sys.exit(main())
