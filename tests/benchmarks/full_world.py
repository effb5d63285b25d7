"""The selector on the whole embedded world: 2,000 index pictures, all of them anchors, 400 queries.

    python tests/benchmarks/full_world.py [WORKSPACE]

takes ten minutes or more on two cores, nearly all of it in generate, and prints the table of methods and shots; a small
edition of it is in the test suite (test_selection.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

from icltool.cli.app import run


def main() -> int:
    workspace = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(mkdtemp(prefix="icltool-full-world-"))
    where = ["--workspace", str(workspace), "--profile", "demo"]
    commands = [
        ["prepare", "--option", "index_images=2000", "--option", "validation_images=400"],
        ["embed"],
        ["generate", "--anchors", "2000", "--candidates", "24"],
        ["train"],
        ["evaluate", "--method", "zero-shot,random,i2i,i2t,t2t,t2i,lever-lm", "--shots", "2,4,8"],
    ]
    for command in commands:
        code = run([*command, *where])
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
