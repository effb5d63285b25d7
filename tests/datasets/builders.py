"""Small data sets in the official layouts, as real files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CAPTIONS: dict[str, dict[int, list[str]]] = {
    "train": {9: ["a cat", "one cat"], 139: ["two dogs"], 25: ["a café, at night", "ein Café", "☕"]},
    "val": {785: ["a skier"], 632: ["a bed"]},
}
#: question id -> (image id, question, answers)
QUESTIONS: dict[str, dict[int, tuple[int, str, list[str]]]] = {
    "train": {
        9001: (9, "how many cats?", ["1"] * 6 + ["2"] * 4),
        9000: (9, "what is this?", ["cat"] * 8 + ["dog", "animal"]),
        139000: (139, "is it day?", ["yes"] * 10),
    },
    "val": {785000: (785, "what sport?", ["skiing"] * 9 + ["ski"])},
}


def write_image(path: Path, size: int = 48) -> None:
    """A noisy picture, so that half of its file is really half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def truncate(path: Path) -> None:
    """Cuts a file in half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def captions_content(captions: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    """A captions file; annotation ids rise from the last image to the first, and are listed backwards."""
    images = [{"file_name": f"{i:012d}.jpg", "height": 48, "width": 48, "id": i, "license": 1} for i in captions]
    listed = [(image_id, text) for image_id in reversed(captions) for text in captions[image_id]]
    annotations = [{"image_id": i, "id": 10 + 7 * n, "caption": text} for n, (i, text) in enumerate(listed)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations[::-1]}


def write_coco(base: Path, captions: Mapping[str, Mapping[int, Sequence[str]]] = CAPTIONS) -> Path:
    """`base` becomes a folder like mscoco2017."""
    for split, of_split in captions.items():
        write_json(base / "annotations" / f"captions_{split}2017.json", captions_content(of_split))
        for image_id in of_split:
            write_image(base / f"{split}2017" / f"{image_id:012d}.jpg")
    return base


def answers_entry(question_id: int, image_id: int, answers: Sequence[str], chosen: str) -> dict[str, Any]:
    return {
        "question_type": "what",
        "multiple_choice_answer": chosen,
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": n} for n, answer in enumerate(answers, start=1)
        ],
        "image_id": image_id,
        "answer_type": "other",
        "question_id": question_id,
    }


def write_vqa(root: Path, questions: Mapping[str, Mapping[int, tuple[int, str, Sequence[str]]]] = QUESTIONS) -> Path:
    """`root` becomes a folder that holds vqav2 and mscoco/mscoco2014."""
    for split, of_split in questions.items():
        asked = [{"image_id": i, "question": text, "question_id": q} for q, (i, text, _) in of_split.items()]
        answered = [answers_entry(q, i, a, a[0] if a else "") for q, (i, _, a) in reversed(of_split.items())]
        common = {"info": {}, "license": {}, "data_subtype": f"{split}2014", "data_type": "mscoco"}
        write_json(questions_file(root, split), {**common, "task_type": "Open-Ended", "questions": asked})
        write_json(answers_file(root, split), {**common, "annotations": answered})
        (root / "mscoco" / "mscoco2014" / f"{split}2014").mkdir(parents=True)
        for image_id in {i for i, _, _ in of_split.values()}:
            write_image(vqa_image(root, split, image_id))
    return root


def questions_file(root: Path, split: str) -> Path:
    return root / "vqav2" / f"v2_OpenEnded_mscoco_{split}2014_questions.json"


def answers_file(root: Path, split: str) -> Path:
    return root / "vqav2" / f"v2_mscoco_{split}2014_annotations.json"


def vqa_image(root: Path, split: str, image_id: int) -> Path:
    return root / "mscoco" / "mscoco2014" / f"{split}2014" / f"COCO_{split}2014_{image_id:012d}.jpg"


def edit(path: Path, change: Any) -> None:
    """Applies `change` to the content of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
