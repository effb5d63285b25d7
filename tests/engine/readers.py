"""Image readers that worker processes of tests can import, and a process with workers that tests kill."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from icltool.engine.preparing import ImagePipeline
from icltool.errors import DataError


class NumberReader:
    """ "7" -> [7, 7, 7] with its process; "bad…" is a DataError."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def __call__(self, path: str) -> dict[str, Any]:
        time.sleep(self.pause)
        if path.startswith("bad"):
            raise DataError(f"image {path} cannot be read", "restore it")
        return {"pixels": np.full(3, float(path), np.float32), "process": np.array(os.getpid())}


class SurroundingsReader:
    """Tells of the process that it runs in."""

    def __call__(self, path: str) -> dict[str, Any]:
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        return {**{name: os.environ.get(name) for name in names}, "process": os.getpid()}


class UnimportableReader:
    """Can be pickled here, and not be unpickled in another process."""

    def __call__(self, path: str) -> Any:
        return path

    def __reduce__(self) -> Any:
        return _only_in, (os.getpid(),)


def _only_in(process: int) -> UnimportableReader:
    if os.getpid() != process:
        raise ImportError("not here")
    return UnimportableReader()


def main() -> None:
    """Prepares images until it is killed; `python -m tests.engine.readers FILE WAIT` writes its workers' ids to FILE, as soon
    as they are started, or (WAIT) when they have prepared something."""
    file, wait = Path(sys.argv[1]), sys.argv[2] == "wait"
    from tests.engine.readers import NumberReader as Importable  # workers do not know this main module

    pipeline = ImagePipeline(Importable(0.02), workers=2, worth=1)
    try:
        pipeline.expect(map(str, range(10**4)))
        for number in range(10**4):
            pipeline.take(str(number))
            processes = [] if pipeline._pool is None else pipeline._pool.processes
            if len(processes) == 2 and (pipeline.from_workers > 20 or not wait) and not file.exists():
                file.with_suffix(".new").write_text(" ".join(map(str, processes)))
                file.with_suffix(".new").rename(file)
    except KeyboardInterrupt:
        pipeline.close()
        sys.exit(130)


if __name__ == "__main__":
    main()
