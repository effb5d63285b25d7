"""Feeds damaged and hostile files to the commands: `python -m tests.reliability.fuzzer PLACE TARGET COUNT SEED`.

Each input is a copy of an untouched state of which one file is mutated; a command then runs in a fork of this process, which
has imported what commands need. A JSON line for each: what was done, and how it ended. It must end with exit code 0, or with 2
and one short "error:" line; no traceback, nothing that runs on, no memory without end, and nothing started, connected,
unpickled or written outside of the copy.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.reliability.killer import EMBED, EVALUATE, GENERATE, LIVE, PREPARE, TRAIN
from tests.reliability.mutations import mutate

_SECONDS, _MEMORY = 40.0, 6 << 30
_LONGEST = 1500
_CANARY = Path("/tmp/icltool_canary")
_WS = ["--workspace", "{box}/ws"]
_NEW = ["--workspace", "{box}/new"]
_DATA = ["--dataset", "shapes", "--task", "caption"]
_SMALL = ["--model", "tiny-idefics", "--device", "cpu", "--batch-size", "2"]
_SOURCE = "ws/datasets/shapes/source"
_WORDS = ["--metric", "word-accuracy", "--test-size", "2"]


@dataclass(frozen=True)
class Target:
    """`before` makes the untouched state, `files` are what is mutated, by glob, `commands` what is then run (one of them)."""

    before: list[list[str]]
    files: list[str]
    commands: list[list[str]] = field(default_factory=list)


_WORLD = [["prepare", "shapes", "--option", "index_images=16", "--option", "validation_images=8"]]
_SEARCHED = [PREPARE, EMBED, GENERATE]
TARGETS: dict[str, Target] = {
    "captions": Target(
        _WORLD,
        [f"{_SOURCE}/mscoco/mscoco2017/annotations/*.json"],
        [["prepare", "coco2017", "--root", f"{{box}}/{_SOURCE}", *_NEW]],
    ),
    "questions": Target(
        _WORLD,
        [f"{_SOURCE}/vqav2/*.json"],
        [["prepare", "vqav2", "--root", f"{{box}}/{_SOURCE}", *_NEW]],
    ),
    "regions": Target(
        _WORLD,
        [f"{_SOURCE}/sherlock_dataset/*.json"],
        [["prepare", "sherlock", "--task", "inference", "--root", f"{{box}}/{_SOURCE}", *_NEW]],
    ),
    "styles": Target(
        _WORLD,
        [f"{_SOURCE}/personality_captions/*.json", f"{_SOURCE}/personality_captions/*.txt"],
        [["prepare", "personality-captions", "--root", f"{{box}}/{_SOURCE}", *_NEW]],
    ),
    "table": Target([], ["src/t.csv"], [["prepare", "folder", "--root", "{box}/src", *_NEW]]),
    "lines": Target([], ["lines/t.jsonl"], [["prepare", "folder", "--root", "{box}/lines", *_NEW]]),
    "images": Target([], ["src/0.jpg", "src/1.png"], [["prepare", "folder", "--root", "{box}/src", "--verify", *_NEW]]),
    "captioned": Target([PREPARE], ["in.json"], [["caption", "--input", "{box}/in.json", *_SMALL, *_WS]]),
    "profile": Target(
        [PREPARE], ["p.toml"], [["generate", "--profile", "{box}/p.toml", "--dry-run", "--anchors", "1", *_WS]]
    ),
    "environment": Target([], [".env"], [["plugins", "list", "--json"]]),
    "records": Target(
        [PREPARE],
        [
            "ws/datasets/shapes/caption/**/*.arrow",
            "ws/datasets/shapes/caption/**/*.json",
            "ws/datasets/shapes/caption/*.npy",
        ],
        [[*EMBED, *_WS]],
    ),
    "embeddings": Target(
        [PREPARE, EMBED],
        ["ws/embeddings/*.h5"],
        [
            [*EMBED, *_WS],
            ["evaluate", *_DATA, *_SMALL, "--method", "i2i", "--shots", "1", *_WORDS, *_WS],
            ["clean", *_WS],
        ],
    ),
    "sequences": Target(
        _SEARCHED,
        ["ws/sequences/*.h5"],
        [["export", "sequences", "--output", "{box}/o.json", *_WS], [*GENERATE, *_WS], [*TRAIN, *_WS]],
    ),
    "results": Target(
        [*_SEARCHED, TRAIN, EVALUATE],
        ["ws/evaluations/*/results.json", "ws/evaluations/*/predictions/*.jsonl"],
        [
            ["report", "--output", "{box}/r.html", *_WS],
            ["export", "results", "--output", "{box}/o.csv", *_WS],
            [*EVALUATE, *_WS],
        ],
    ),
    "checkpoints": Target(
        [*_SEARCHED, TRAIN],
        ["ws/checkpoints/*/*.safetensors", "ws/checkpoints/*/*.json"],
        [
            [
                "evaluate",
                *_DATA,
                *_SMALL,
                "--method",
                "lever-lm",
                "--encoder",
                "tiny-clip",
                "--shots",
                "1",
                *_WORDS,
                *_WS,
            ]
        ],
    ),
    "plan": Target(
        [PREPARE],
        ["plan.json"],
        [["evaluate", *_DATA, *_SMALL, "--plan", "{box}/plan.json", *_WORDS, *_WS]],
    ),
    "encoder": Target(
        [PREPARE],
        ["encoder/*"],
        [["embed", "--encoder", "tiny-clip", "--encoder-path", "{box}/encoder", *_DATA, *_WS]],
    ),
    "vectors": Target(
        [PREPARE, LIVE],
        ["ws/checkpoints/*/*.safetensors", "ws/checkpoints/*/*.json", "ws/checkpoints/*/metrics.csv"],
        [["evaluate", *_DATA, *_SMALL, "--method", "live", "--no-cost", *_WORDS, *_WS], [*LIVE, *_WS]],
    ),
    "weights": Target(
        [PREPARE],
        ["model/*"],
        [["evaluate", *_DATA, *_SMALL, "--model-path", "{box}/model", "--method", "zero-shot", *_WORDS, *_WS]],
    ),
}


def build(place: Path, target: Target) -> Path:
    """The untouched state."""
    box = place / "base"
    box.mkdir(parents=True)
    for command in target.before:
        code, text = run([*command, "--workspace", str(box / "ws"), "--quiet"], box, guarded=False)
        if code:
            raise RuntimeError(f"{command} ended with {code}: {text}")
    _own_files(box)
    return box


def _own_files(box: Path) -> None:
    from PIL import Image

    from icltool.components.models.shared.weights import packaged_weights

    (box / "src").mkdir()
    (box / "lines").mkdir()
    rows = ["image,question,answer,split"]
    for number in range(6):
        name = f"{number}.{'png' if number % 2 else 'jpg'}"
        for folder in ("src", "lines"):
            Image.new("RGB", (24, 16), (40 * number, 9, 90)).save(box / folder / name, dpi=(72, 72))
        rows.append(f"{name},what is it {number}?,an image,{'train' if number < 4 else 'val'}")
    (box / "src" / "t.csv").write_text("\n".join(rows) + "\n")
    names, *values = (row.split(",") for row in rows)
    entries = [json.dumps(dict(zip(names, row, strict=True))) for row in values]
    (box / "lines" / "t.jsonl").write_text("\n".join(entries) + "\n")
    (box / "in.json").write_text(json.dumps([{"image": str(box / "src" / f"{n}.jpg")} for n in (0, 2)]))
    (box / "p.toml").write_text('summary = "a set-up"\n[generate]\nshots = 1\ncandidates = 4\nmodel = "tiny-idefics"\n')
    (box / ".env").write_text("COCO_PATH=/data/coco\nexport MODEL_CPK_DIR='/models' # weights\nPATH=/evil\n")
    shutil.copytree(packaged_weights("tiny-idefics"), box / "model")
    shutil.copytree(packaged_weights("tiny-clip"), box / "encoder")
    if (box / "ws").exists():
        from icltool.store.records import open_dataset

        dataset = open_dataset(box / "ws" / "datasets" / "shapes" / "caption")
        train, queries = dataset.split("train").ids.tolist(), dataset.split("validation").ids.tolist()
        (box / "plan.json").write_text(json.dumps({str(query): train[:2] for query in queries}))


def run(argv: list[str], box: Path, guarded: bool = True) -> tuple[Any, str]:
    """(exit code, or what went wrong; the output) of a command in a fork whose current folder is `box`."""
    output, telling = (box.with_name(f"{box.name}.{kind}") for kind in ("out", "told"))
    telling.unlink(missing_ok=True)
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            _in_child(argv, box, output, telling, guarded)
        os._exit(98)
    code = _waited_for(child)
    record = telling.read_text() if telling.exists() else ""
    text = output.read_text(errors="replace") if output.exists() else ""
    if code is None:
        return "it runs on", text
    if os.WIFSIGNALED(code):
        return f"signal {os.WTERMSIG(code)}", text
    if not record:
        return f"escaped: exit code {os.WEXITSTATUS(code)}", text
    exit_code, events, modules = json.loads(record)
    for name in modules:
        if name not in sys.modules and not name.startswith(("__", "tests", "ray", "gradio")):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return (f"did {events[0]}" if events else exit_code), text


def _waited_for(child: int) -> int | None:
    until = time.monotonic() + _SECONDS
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)
    return ended[1]


def _in_child(argv: list[str], box: Path, output: Path, telling: Path, guarded: bool) -> None:
    descriptor = os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(box)
    tempfile.tempdir = str(box)  # what libraries write for a moment, they may write there
    before = set(sys.modules)
    events: list[str] = []
    if guarded:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + _MEMORY, used + _MEMORY))
        sys.addaudithook(_Watch(box, events))
    from icltool.cli.app import run as command

    code = command(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    record = json.dumps([code, list(events[:3]), sorted(set(sys.modules) - before)])
    telling.write_text(record)
    os._exit(0)


class _Watch:
    """An audit hook that notes what no data may bring about."""

    _STARTS = (
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "socket.connect",
        "pickle.find_class",
    )

    def __init__(self, box: Path, events: list[str]) -> None:
        self._events = events
        self._ours = (str(box), os.devnull, "/proc/", "/tmp/torchinductor", str(Path.home() / ".cache"), "/dev/shm/")

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in self._STARTS:
            self._events.append(f"{name} {str(arguments[:2])[:150]}")
        elif name == "open" and isinstance(arguments[0], str | bytes) and self._writes(arguments):
            place = os.path.realpath(os.fsdecode(arguments[0]))
            if not place.startswith(self._ours):
                self._events.append(f"write {place}")

    @staticmethod
    def _writes(arguments: tuple[Any, ...]) -> bool:
        _, mode, flags = arguments
        by_mode = isinstance(mode, str) and any(sign in mode for sign in "wax+")
        return by_mode or (isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))


def fault(code: Any, text: str) -> str:
    """What is wrong with how a command ended; "" for nothing."""
    if _CANARY.exists():
        _CANARY.unlink()
        return "code out of the data ran"
    if code not in (0, 2):
        return f"it ended with {code}"
    if "Traceback (most recent" in text:
        return "a traceback"
    errors = re.findall(r"^error: .*", text, re.MULTILINE)
    if code == 2 and (len(errors) != 1 or len(errors[0]) > _LONGEST):
        return f"{len(errors)} error lines, {len(text)} characters"
    return ""


def main() -> None:
    """See the module's text."""
    place, name, count, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    target, rng = TARGETS[name], random.Random(f"{name} {seed}")
    base, box = build(place, target), place / "box"
    for command in target.commands:  # warm: what it imports is imported here
        shutil.rmtree(box, ignore_errors=True)
        shutil.copytree(base, box, symlinks=True)
        run([part.format(box=box) for part in command], box, guarded=False)
    for number in range(count):
        shutil.rmtree(box, ignore_errors=True)
        shutil.copytree(base, box, symlinks=True)
        files = sorted(file for pattern in target.files for file in box.glob(pattern))
        done = mutate(rng.choice([file for file in files if file.is_file()]), rng)
        command = [part.format(box=box) for part in rng.choice(target.commands)]
        code, text = run(command, box)
        wrong = fault(code, text)
        line = {
            "target": name,
            "number": number,
            "done": done,
            "command": command[0],
            "code": str(code),
            "fault": wrong,
        }
        print(json.dumps({**line, "text": text[-1500:] if wrong else ""}), flush=True)


if __name__ == "__main__":
    main()
