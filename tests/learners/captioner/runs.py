"""A training in a process of its own: `python -m tests.learners.captioner.runs FOLDER EXAMPLES.json OPTIONS.json`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from icltool.contracts import Example


def write_inputs(folder: Path, examples: list[Example], options: dict[str, Any]) -> list[str]:
    """The arguments of a run into `folder / "out"`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "examples.json").write_text(json.dumps([asdict(example) for example in examples]))
    (folder / "options.json").write_text(json.dumps(options))
    return [str(folder / name) for name in ("out", "examples.json", "options.json")]


def read_examples(file: str) -> list[Example]:
    told = json.loads(Path(file).read_text())
    return [Example(**{k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}) for one in told]


def main() -> None:
    import torch

    from tests.learners.captioner.sets import tuned, tuning_set

    torch.set_num_threads(1)  # as the tests of learners have it: sums over another number of threads round otherwise
    folder, examples, options = sys.argv[1:4]
    try:
        tuned(tuning_set(read_examples(examples)), Path(folder), **json.loads(Path(options).read_text()))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
