"""Workspaces with artefacts of every state, and what `icltool clean` makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import icltool
from icltool.commands.clean import run as clean
from icltool.commands.clean.options import CleanConfig
from icltool.contracts import QueryResult
from icltool.execution.progress import SilentProgress
from icltool.store.atomic import read_json, write_json
from icltool.store.evaluations import MetricResult, SettingResult, write_results
from icltool.store.inventory.artefact import Artefact
from icltool.store.inventory.inventory import inventory
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter
from icltool.store.workspace import Workspace
from tests.store import killable

PROGRESS = SilentProgress()
TRAIN = "embeddings/shapes-caption-train-tiny-clip.h5"


def fingerprint(workspace: Path, task: str = "caption") -> str:
    return str(read_json(workspace / "datasets" / "shapes" / task / "dataset.json")["fingerprint"])


def sequences(workspace: Path, name: str, finished: int = 3, total: int = 3, **identity: Any) -> Path:
    """A sequences file of the data set that is prepared for captions."""
    configuration = {"dataset": "shapes", "task": "caption", **identity}
    provenance = Provenance(configuration, fingerprint(workspace))
    path = workspace / "sequences" / name
    with SequenceWriter(path, provenance, killable.SHOTS, killable.BEAMS, killable.CANDIDATES, total) as writer:
        for query in range(finished):
            result: QueryResult = killable.result_of(query)
            writer.append(result)
    return path


def checkpoint(workspace: Path, name: str, sequences: str = "", **identity: Any) -> Path:
    folder = workspace / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "last.safetensors").write_bytes(b"x" * 3000)
    configuration = {"dataset": "shapes", "task": "caption", "dataset_fingerprint": fingerprint(workspace), **identity}
    record = {
        "schema": "icltool.training",
        "schema_version": 1,
        "identity": configuration,
        "provenance": {"sequences": sequences},
    }
    write_json(folder / "training.json", {**record, "checkpoints": {"last": "last.safetensors"}})
    return folder


def evaluation(workspace: Path, name: str, made_from: str = "", **options: Any) -> Path:
    folder = workspace / "evaluations" / name
    result = SettingResult("i2i", 2, 0, 5, {"accuracy": MetricResult(0.5, 0.4, 0.6)}, extra={"options": options})
    configuration = {"dataset": "shapes", "task": "caption", "dataset_fingerprint": made_from or fingerprint(workspace)}
    (folder / "predictions").mkdir(parents=True)
    write_results(folder, [result], {"configuration": configuration})
    (folder / "predictions" / "i2i-2-shot-seed0.jsonl").write_text("{}\n")
    return folder


def listed(workspace: Path) -> dict[str, Artefact]:
    return {a.label: a for a in inventory(Workspace(workspace)).artefacts}


def planned(workspace: Path, *names: str, **options: Any) -> clean.CleanReport:
    return clean.plan(CleanConfig(workspace=workspace, names=names, **options), PROGRESS)


def chosen(workspace: Path, *names: str, **options: Any) -> set[str]:
    return {a.label for a in planned(workspace, *names, **options).artefacts}


def cleaned(workspace: Path, *names: str, **options: Any) -> clean.CleanReport:
    return clean.run(planned(workspace, *names, **options), PROGRESS)


@contextmanager
def locked_elsewhere(path: Path) -> Iterator[int]:
    """Another process holds the artefact's lock; its id."""
    code = (
        "import sys; from pathlib import Path; from icltool.store.locking import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(icltool.__file__).parents[1])},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
    finally:
        process.communicate(timeout=30)
