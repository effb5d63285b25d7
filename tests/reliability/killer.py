"""Runs whole stages and kills them at chosen file operations: `python -m tests.reliability.killer SLOT STAGE TRIALS SEED`, with
crashfs.so (made of crashfs.c beside this) preloaded.

The process imports what the stages need once and forks a child for each run. crashfs counts the child's file operations below
the workspace; at a random one of them the child is killed: before it, in the middle of a write, or after it. After up to three
kills the same command runs undisturbed. A JSON line for each trial: how many kills, the last exit code, and what is wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.reliability.workspace_content import content_of

_DATA = ["--dataset", "shapes", "--task", "caption"]
_MODEL = [*_DATA, "--model", "tiny-idefics", "--device", "cpu"]
_SIZES = ["--option", "index_images=16", "--option", "validation_images=8"]
PREPARE = ["prepare", "shapes", "--task", "caption", *_SIZES]
EMBED = ["embed", "--encoder", "tiny-clip", *_DATA, "--batch-size", "4"]
GENERATE = ["generate", *_MODEL, "--sampler", "random", "--anchors", "8", "--candidates", "6", "--beam-size", "2",
            "--shots", "2", "--anchors-at-once", "2"]  # fmt: skip
_SELECTOR = [f"--option={o}" for o in ("n_embd=16", "n_head=2", "n_layer=1", "epochs=2", "batch_size=4")]
TRAIN = ["train", "lever-lm", *_DATA, *_SELECTOR]
_STEERING = [f"--option={o}" for o in ("epochs=2", "batch_size=4", "accumulate=1", "max_train_size=8")]
LIVE = ["train", "live", *_MODEL, "--option=shots=2", *_STEERING]
EVALUATE = ["evaluate", *_MODEL, "--encoder", "tiny-clip", "--method", "zero-shot,random,i2i,lever-lm", "--shots", "1,2",
            "--metric", "word-accuracy,cider", "--batch-size", "2"]  # fmt: skip
#: Stage -> (commands before it, the command).
STAGES: dict[str, tuple[list[list[str]], list[str]]] = {
    "prepare": ([], ["prepare", "shapes", *_SIZES]),
    "prepare again": (
        [["prepare", "shapes", "--task", "caption", *_SIZES, "--option", "seed=5"]],
        [*PREPARE, "--option", "seed=6", "--overwrite"],
    ),
    "embed": ([PREPARE], EMBED),
    "generate": ([PREPARE], GENERATE),
    "train": ([PREPARE, EMBED, GENERATE], TRAIN),
    "train live": ([PREPARE], LIVE),
    "train lora": ([PREPARE], ["train", "lora", *_MODEL, *_STEERING]),
    "evaluate": ([PREPARE, EMBED, GENERATE, TRAIN], EVALUATE),
    "caption": ([PREPARE], ["caption", *_MODEL, "--samples", "8", "--batch-size", "2"]),
    "report": ([PREPARE, EMBED, GENERATE, TRAIN, EVALUATE], ["report", "--overwrite"]),
    "export sequences": ([PREPARE, GENERATE], ["export", "sequences", "--overwrite"]),
    "export results": ([PREPARE, EMBED, GENERATE, TRAIN, EVALUATE], ["export", "results", "--overwrite"]),
    "clean": ([PREPARE, EMBED, GENERATE], ["clean", "--kind", "embeddings,sequences", "--yes"]),
}
#: Ways to be killed, by crashfs' numbers: before an operation, in the middle of a write, after it.
_WAYS = (1, 2, 5)
KILLS = 3
_PATIENCE = 300.0


class Slot:
    """A folder with the workspace that stages run in, and copies of it as earlier stages left it."""

    def __init__(self, place: Path) -> None:
        self.place, self.workspace = place, place / "ws"
        self.output, self.counted, self.units = place / "output", place / "count", place / "units"
        self.modules = place / "modules"
        place.mkdir(parents=True, exist_ok=True)
        self._shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._shim.rl_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
        self._shim.rl_count.restype = ctypes.c_long

    def run(self, command: list[str], operation: int = -1, way: int = 0) -> tuple[int, int]:
        """(exit code, negative for a signal; file operations) of a command, killed at an operation where one is given."""
        self.counted.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                self._in_child(command, operation, way)
            os._exit(99)
        until = time.monotonic() + _PATIENCE
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise TimeoutError(" ".join(command))
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)  # what it had started
        count = int(self.counted.read_text()) if self.counted.exists() else 0
        return os.waitstatus_to_exitcode(ended[1]), count

    def _in_child(self, command: list[str], operation: int, way: int) -> None:
        os.setpgid(0, 0)
        output = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.chdir(self.place)
        _log_what_is_stored(self.units)
        from icltool.cli.app import run

        try:
            self._shim.rl_arm(operation, way, f"{self.workspace}/".encode(), None)
            code = run([*command, "--workspace", str(self.workspace), "--quiet"])
            self._shim.rl_disarm()
            self.counted.write_text(str(self._shim.rl_count()))
            self.modules.write_text("\n".join(sys.modules))
        except BaseException:
            traceback.print_exc()
            raise
        sys.stdout.flush()
        os._exit(code)

    def warm(self) -> None:
        """Imports here what the last run imported, so that forks need not."""
        for name in self.modules.read_text().splitlines():
            if name not in sys.modules and not name.startswith(("__", "tests", "ray", "gradio")):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)

    def restore(self, base: Path | None) -> None:
        """The workspace as it was."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        if base is None:
            self.workspace.mkdir()
        else:
            shutil.copytree(base, self.workspace, symlinks=True)
        self.units.unlink(missing_ok=True)

    def base(self, before: list[list[str]]) -> Path:
        """The workspace as these commands leave it; made once."""
        base = self.place / f"base-{len(before)}-{'-'.join(command[0] for command in before)}"
        if not base.exists():
            self.restore(self.base(before[:-1]) if before else None)
            if before:
                code, _ = self.run(before[-1])
                self.warm()
                if code:
                    raise RuntimeError(f"{before[-1]}: {self.output.read_text()[-2000:]}")
            shutil.copytree(self.workspace, base, symlinks=True)
        return base


def _log_what_is_stored(units: Path) -> None:
    """Everything that the store has said it holds goes into a file outside of the workspace."""
    from icltool.store.embeddings import EmbeddingWriter
    from icltool.store.evaluations import PartialAnswers
    from icltool.store.sequences import SequenceWriter

    log = os.open(units, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def wrapped(kind: str, method: Any, what: Any) -> Any:
        def append(self: Any, *arguments: Any, **named: Any) -> None:
            method(self, *arguments, **named)
            os.write(log, (json.dumps([kind, str(self.path), what(self, *arguments)]) + "\n").encode())

        return append

    for owner, kind, what in (
        (SequenceWriter, "sequences", lambda self, result: [result.query_id]),
        (EmbeddingWriter, "embeddings", lambda self, *arguments: [int(self.done)]),
        (PartialAnswers, "answers", lambda self, rows, *arguments: [row["query_id"] for row in rows]),
    ):
        owner.append = wrapped(kind, owner.append, what)  # type: ignore[attr-defined]


def lost(units: Path) -> list[str]:
    """What had been stored and is not there."""
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.sequences import SequenceFile

    reported: dict[tuple[str, str], set[int]] = {}
    for line in units.read_text().splitlines() if units.exists() else ():
        kind, path, what = json.loads(line)
        reported.setdefault((kind, path), set()).update(what)
    results = []
    for (kind, path), what in reported.items():
        if kind == "sequences":
            with SequenceFile.open(Path(path)) as file:
                gone = what - set(file.query_ids)
        elif kind == "embeddings":
            with EmbeddingFile.open(Path(path)) as rows:
                gone = {count for count in what if count > len(rows)}
        else:
            gone = what - _answered(Path(path))
        results += [f"lost: {kind} {sorted(gone)[:5]} of {path}"] if gone else []
    return results


def _answered(part: Path) -> set[int]:
    name = re.sub(r"@[0-9a-f]{6}(?=\.)", "", part.name.removeprefix(".").removesuffix(".part"))
    ids = set()
    for path in (part, part.with_name(name)):
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                ids.add(json.loads(line).get("query_id"))
    return ids


def in_fork(function: Any) -> Any:
    """What the function gives, called in a fork: this process opens no HDF5 file and starts no thread; forks inherit both."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as stream:
            try:
                json.dump(function(), stream)
            except BaseException as error:
                json.dump([f"cannot be looked at: {type(error).__name__}: {error}"], stream)
                stream.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def trial(
    slot: Slot, command: list[str], base: Path, operations: int, expected: dict[str, str], rng: random.Random
) -> dict[str, Any]:
    """Up to KILLS kills in a row, then an undisturbed run."""
    slot.restore(base)
    problems: list[str] = []
    kills, code = 0, 0
    for _ in range(KILLS):
        code, _ = slot.run(command, rng.randint(1, operations), rng.choice(_WAYS))
        if code != -signal.SIGKILL:
            break
        kills += 1
        seen = in_fork(lambda: content_of(slot.workspace)[0])
        problems += [f"{name} {why}" for name, why in seen.items() if why.startswith("unreadable")]
        problems += in_fork(lambda: lost(slot.units))
    code, _ = slot.run(command)
    if code:
        problems.append(f"refused: {code}: {slot.output.read_text(errors='replace')[-400:]}")
    seen, hidden = in_fork(lambda: content_of(slot.workspace))
    differing = sorted(name for name in {*seen, *expected} if seen.get(name) != expected.get(name))
    problems += [f"differs: {name}" for name in differing] + in_fork(lambda: lost(slot.units))
    return {"kills": kills, "code": code, "problems": problems, "hidden": hidden}


def main() -> None:
    """See the module's text."""
    place, stage, trials, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    slot, rng = Slot(place), random.Random(f"{stage} {seed}")
    before, command = STAGES[stage]
    base = slot.base(before)
    slot.restore(base)
    code, operations = slot.run(command)
    slot.warm()
    expected, hidden = in_fork(lambda: content_of(slot.workspace))
    print(json.dumps({"stage": stage, "code": code, "operations": operations, "hidden": hidden}), flush=True)
    for _ in range(trials):
        print(json.dumps({"stage": stage, **trial(slot, command, base, operations, expected, rng)}), flush=True)


if __name__ == "__main__":
    main()
