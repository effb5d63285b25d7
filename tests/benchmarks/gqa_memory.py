"""The memory and time that `icltool prepare gqa` needs at full scale: 943,000 training questions in one file of 1 GB.

    python -m tests.benchmarks.gqa_memory [FOLDER] --full

makes a data set of the official size in the official layout (questions with their programs and annotations; images as a zip
archive of one small image each), prepares it in a process of its own, and prints the size of the file, that process's largest
resident memory and its seconds. It takes 4 GB of disk in FOLDER (default: a temporary one, removed at the end). Without
--full the data set is a thousandth as large; --questions and --images set other sizes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

#: Questions and images of the official data set.
TRAIN, TESTDEV = (943_000, 72_140), (12_578, 398)
WORDS = [
    "what",
    "is",
    "the",
    "color",
    "of",
    "small",
    "wooden",
    "red",
    "chair",
    "table",
    "man",
    "holding",
    "left",
    "front",
]
ANSWERS = [f"{first} {second}".strip() for first in ("", *WORDS) for second in WORDS]


def question(rng: random.Random, image: str) -> dict[str, object]:
    """A question with all fields of the official files, 1.1 kB as text."""
    structural = rng.choice(["query", "verify", "logical", "choose", "compare"])
    answer = rng.choice(ANSWERS) if structural == "query" else rng.choice(["yes", "no"])
    steps = [
        {"operation": operation, "argument": f"{rng.choice(WORDS)} ({rng.randrange(10**6)})", "dependencies": [place]}
        for place, operation in enumerate(rng.choices(["select", "relate", "filter color", "query", "verify"], k=4))
    ]
    same = [f"{rng.randrange(10**8):08d}" for _ in range(rng.randrange(2, 16))]
    names = {str(place): str(rng.randrange(10**6)) for place in rng.sample(range(12), 3)}
    return {
        "semantic": steps,
        "entailed": same,
        "equivalent": same[:2],
        "question": " ".join(rng.choices(WORDS, k=rng.randrange(5, 14))).capitalize() + "?",
        "imageId": image,
        "isBalanced": True,
        "groups": {"global": rng.choice([None, "color", "person", "furniture"]), "local": f"06-{rng.choice(ANSWERS)}_x"},
        "answer": answer,
        "semanticStr": "->".join(f"{s['operation']}: {s['argument']} {s['dependencies']}" for s in steps),
        "annotations": {"answer": {"0": names.get("0", "1")}, "question": names, "fullAnswer": names},
        "types": {"detailed": "existAttrC", "semantic": rng.choice(["attr", "rel", "obj", "cat", "global"]),
                  "structural": structural},
        "fullAnswer": " ".join(rng.choices(WORDS, k=9)).capitalize() + ".",
    }  # fmt: skip


def write_part(root: Path, part: str, questions: int, images: Sequence[str]) -> Path:
    """The file of questions of "train" or "testdev"; an id is 8 digits, as official ones are."""
    rng, path = random.Random(part), root / f"{part}_balanced_questions.json"
    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        for n in range(questions):
            entry = json.dumps(question(rng, images[n % len(images)]))
            file.write(f'{", " if n else ""}"{1 + 97 * n:08d}": {entry}')
        file.write("}")
    return path


def measure(root: Path, questions: int, images: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    of_train = [str(1 + 31 * n) for n in range(images)]
    of_testdev = [f"n{1 + 7 * n}" for n in range(min(TESTDEV[1], images))]
    sizes = [
        write_part(root, "train", questions, of_train).stat().st_size,
        write_part(root, "testdev", min(TESTDEV[0], questions), of_testdev).stat().st_size,
    ]
    image = io.BytesIO()
    Image.new("RGB", (32, 32), "orange").save(image, "JPEG")
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for name in (*of_train, *of_testdev):
            archive.writestr(f"images/{name}.jpg", image.getvalue())
    print(f"{questions:,} questions, {sizes[0] / 1e6:,.1f} MB; queries: {sizes[1] / 1e6:,.1f} MB", flush=True)
    places = ["--root", str(root), "--workspace", str(root / "ws")]
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "icltool", "prepare", "gqa", *places],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak resident memory {peak / 1e9:.2f} GB, {seconds:.0f} s")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gqa_memory")
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where the files are made, and stay; none: a temporary folder"
    )
    parser.add_argument("--full", action="store_true", help="as many questions and images as the official data set has")
    parser.add_argument("--questions", type=int, help="questions of train")
    parser.add_argument("--images", type=int, help="images of train")
    options = parser.parse_args(arguments)
    full = [number if options.full else max(1, number // 1000) for number in TRAIN]
    questions, images = options.questions or full[0], options.images or full[1]
    if options.folder is not None:
        measure(options.folder.absolute(), questions, images)
        return
    with TemporaryDirectory(prefix="icltool-gqa-memory-") as folder:
        measure(Path(folder), questions, images)


if __name__ == "__main__":
    main()
