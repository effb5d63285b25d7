"""Writers that tests kill: `python -m tests.store.killable` forks one for each JSON line that it reads.

Forking from a process that has loaded NumPy and h5py and no more makes dozens of kills affordable: a test process with all
that tests import takes ten times as long. The writer reports on the standard output: "pid N", "has N,..." for what it found
stored, "added N" for each append that returned, "closing", and "finished"; then it waits to be killed. The parent of the
writer reports "end" once it is dead.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # noqa: F401  (loaded before the fork)
import numpy as np

from icltool.contracts import QueryResult
from icltool.store.embeddings import EmbeddingWriter
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter
from tests.processes import die_before

SHOTS, BEAMS, CANDIDATES, DIM, FIELDS = 3, 4, 9, 16, ("image", "text")
PROVENANCE = Provenance(
    {"sampler": "random", "beam_size": BEAMS, "options": {"order": "left", "norm": [1, 2]}},
    "0123abcd",
    seed=7,
    plugins={"sampler:random": "icltool 0.1.0"},
    extra={"remark": "a test"},
)


@functools.cache
def result_of(query: int) -> QueryResult:
    """A query's result, the same whenever it is asked for; some have fewer beams and candidates."""
    rng = np.random.default_rng(query)
    beams, candidates = (BEAMS, CANDIDATES) if query % 5 else (BEAMS - 2, CANDIDATES - 4)
    return QueryResult(
        query_id=query,
        candidates=rng.integers(0, 10**6, candidates),
        icd_ids=rng.integers(0, 10**6, (beams, SHOTS)),
        scores=rng.normal(size=beams),
        step_scores=rng.normal(size=(beams, SHOTS)),
        values=rng.normal(size=beams),
        log_probs=np.full(beams, np.nan) if query % 3 == 0 else rng.normal(size=beams),
        base_value=float(rng.normal()),
        base_log_prob=float("nan") if query % 3 == 0 else float(rng.normal()),
    )


def features_of(rows: range) -> dict[str, Any]:
    """The features of some rows, float32 [n, DIM] per field, the same whatever the block they are asked for in."""
    table = np.stack([np.random.default_rng(row).normal(size=(len(FIELDS), DIM)) for row in rows]).astype(np.float32)
    return {name: table[:, column] for column, name in enumerate(FIELDS)}


def ids_of(rows: range) -> Any:
    return np.array([1000 + 3 * row for row in rows], np.int64)


def sequence_writer(path: Path, total: int, **options: Any) -> SequenceWriter:
    return SequenceWriter(path, options.pop("provenance", PROVENANCE), SHOTS, BEAMS, CANDIDATES, total, **options)


def embedding_writer(path: Path, total: int, **options: Any) -> EmbeddingWriter:
    provenance = options.pop("provenance", PROVENANCE)
    return EmbeddingWriter(path, provenance, "tiny-clip", "c0ffee", DIM, FIELDS, total, **options)


def say(text: str) -> None:
    """One line, short enough (4096 bytes) to be in the pipe whole or not at all."""
    os.write(1, f"{text}\n".encode())


Say = Callable[[str], object]


class Pace:
    """Lets `most` appends through, each after a random pause; at the next one it waits to be killed."""

    def __init__(self, pause: float, most: int, rng: np.random.Generator) -> None:
        self.pause, self.left, self.rng = pause, most, rng

    def wait(self) -> None:
        while self.left == 0:
            signal.pause()
        self.left -= 1
        time.sleep(self.rng.uniform(0, self.pause))


def write_sequences(path: Path, total: int, close_every: int, pace: Pace, say: Say = say) -> None:
    """Finishes the queries that are missing, in random order; closes and opens the file every few queries."""
    while True:
        with sequence_writer(path, total) as writer:
            say("has " + ",".join(map(str, writer.finished)))
            left = sorted(set(range(total)) - writer.finished)
            for query in pace.rng.permutation(left)[:close_every]:
                pace.wait()
                writer.append(result_of(int(query)))
                say(f"added {query}")
            say("closing")
        if len(left) <= close_every:
            return


def write_embeddings(path: Path, total: int, close_every: int, pace: Pace, say: Say = say) -> None:
    """Goes on at the first missing row, in blocks of random size."""
    done = 0
    while done < total:
        with embedding_writer(path, total) as writer:
            say("has " + ",".join(map(str, range(writer.done))))
            for _ in range(close_every):
                rows = range(writer.done, min(writer.done + int(pace.rng.integers(1, 3)), total))
                if len(rows):
                    pace.wait()
                    writer.append(ids_of(rows), features_of(rows))
                    say("added " + ",".join(map(str, rows)))
            say("closing")
            done = writer.done


WRITERS = {"sequences": write_sequences, "embeddings": write_embeddings}


def begin(kind: str, path: Path, total: int, count: int) -> None:
    """Writes the first `count` of `total`."""
    if kind == "sequences":
        with sequence_writer(path, total) as sequences:
            for query in range(count):
                sequences.append(result_of(query))
    else:
        with embedding_writer(path, total) as rows:
            rows.append(ids_of(range(count)), features_of(range(count)))


def written(kind: str, path: Path, total: int, close_every: int) -> list[str]:
    """What a writer of this process reports that adds what is missing."""
    lines: list[str] = []
    WRITERS[kind](path, total, close_every, Pace(0.0, -1, np.random.default_rng(0)), lines.append)
    return lines


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:  # so that all that is imported late is imported
        begin("sequences", Path(folder) / "rehearsal.h5", 1, 1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            say(f"pid {os.getpid()}")
            if order["die_at"]:
                die_before(order["die_at"])
            pace = Pace(order["pause"], order["most"], np.random.default_rng(order["seed"]))
            WRITERS[order["kind"]](Path(order["path"]), order["total"], order["close_every"], pace)
            say("finished")
            while True:
                signal.pause()
        os.waitpid(child, 0)
        say("end")


if __name__ == "__main__":
    main()
