"""The memory that `icltool prepare vqav2` needs at full scale: 443,757 training questions with 4,437,570 answers.

    python tests/benchmarks/prepare_memory.py [FOLDER]

makes a data set of the official size in the official layout (annotations unpacked, images as zip archives of one small
image each), prepares it in a process of its own, and prints that process's largest resident memory and the time that it
took. It needs 1.5 GB of disk in FOLDER (default: a temporary one, removed at the end).
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

#: Part -> images, questions of the official split.
SIZES = {"train": (82_783, 443_757), "val": (40_504, 214_354)}
WORDS = ["what", "is", "the", "colour", "of", "this", "small", "large", "cat", "dog", "man", "holding", "on", "café"]


def answers(rng: random.Random) -> list[str]:
    """Ten answers: short, most of them frequent, some that occur nowhere else, as in the real set."""
    usual = rng.choice(["yes", "no", "2", "white", "on table", f"{rng.choice(WORDS)} {rng.choice(WORDS)}"])
    return [usual if rng.random() < 0.7 else f"{rng.choice(WORDS)} {rng.randrange(200_000)}" for _ in range(10)]


def entries(part: str) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """A question and its annotation, for every question of the split; ids as official ones are, not consecutive."""
    rng = random.Random(part)
    images, questions = SIZES[part]
    for n in range(questions):
        image_id = 9 + 7 * (n % images)
        question_id = image_id * 1000 + n // images
        replies = answers(rng)
        entry = {"image_id": image_id, "question": " ".join(rng.choices(WORDS, k=6)) + "?", "question_id": question_id}
        answered = {
            "question_type": "what is the",
            "multiple_choice_answer": replies[0],
            "answers": [
                {"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(replies, start=1)
            ],
            "image_id": image_id,
            "answer_type": "other",
            "question_id": question_id,
        }
        yield entry, answered


def write_part(root: Path, part: str) -> None:
    """The two files and the image archive of "train" or "val"."""
    folder = root / "vqav2"
    questions = folder / f"v2_OpenEnded_mscoco_{part}2014_questions.json"
    annotations = folder / f"v2_mscoco_{part}2014_annotations.json"
    common = json.dumps({"info": {}, "license": {}, "data_subtype": f"{part}2014", "data_type": "mscoco"})[:-1]
    with questions.open("w", encoding="utf-8") as questions_file, annotations.open("w", encoding="utf-8") as answered:
        questions_file.write(f'{common}, "task_type": "Open-Ended", "questions": [')
        answered.write(f'{common}, "annotations": [')
        for n, (question, annotation) in enumerate(entries(part)):
            questions_file.write((", " if n else "") + json.dumps(question))
            answered.write((", " if n else "") + json.dumps(annotation))
        questions_file.write("]}")
        answered.write("]}")
    image = io.BytesIO()
    Image.new("RGB", (32, 32), "orange").save(image, "JPEG")
    with zipfile.ZipFile(root / "mscoco" / "mscoco2014" / f"{part}2014.zip", "w") as archive:
        for n in range(SIZES[part][0]):
            archive.writestr(f"{part}2014/COCO_{part}2014_{9 + 7 * n:012d}.jpg", image.getvalue())


def measure(root: Path) -> None:
    for name in ("vqav2", "mscoco/mscoco2014"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for part in SIZES:
        write_part(root, part)
    sizes = {path.name: path.stat().st_size / 1e6 for path in (root / "vqav2").iterdir()}
    print(", ".join(f"{name}: {size:,.0f} MB" for name, size in sorted(sizes.items())), flush=True)
    command = [
        sys.executable,
        "-m",
        "icltool",
        "prepare",
        "vqav2",
        "--root",
        str(root),
        "--workspace",
        str(root / "ws"),
    ]
    started = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak resident memory {peak / 1e9:.2f} GB, {time.monotonic() - started:.0f} s")


def main() -> None:
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]).absolute())
        return
    with TemporaryDirectory(prefix="icltool-prepare-memory-") as folder:
        measure(Path(folder))


if __name__ == "__main__":
    main()
