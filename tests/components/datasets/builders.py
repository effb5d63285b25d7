"""Small data sets in the official layouts, as real files."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icltool.contracts import DatasetReader, Example
from icltool.execution.progress import SilentProgress

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
    """A noisy image, so that half of its file is really half."""
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


def captions_content(captions: Mapping[int, Sequence[str]], name: str = "{:012d}.jpg") -> dict[str, Any]:
    """A captions file; annotation ids rise from the last image to the first, and are listed backwards."""
    images = [{"file_name": name.format(i), "height": 48, "width": 48, "id": i, "license": 1} for i in captions]
    listed = [(image_id, text) for image_id in reversed(captions) for text in captions[image_id]]
    annotations = [{"image_id": i, "id": 10 + 7 * n, "caption": text} for n, (i, text) in enumerate(listed)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations[::-1]}


def write_coco(base: Path, captions: Mapping[str, Mapping[int, Sequence[str]]] = CAPTIONS, year: int = 2017) -> Path:
    """`base` becomes a folder like mscoco2017 (or 2014, where image names begin with the split)."""
    for split, of_split in captions.items():
        name = "{:012d}.jpg" if year == 2017 else f"COCO_{split}{year}_{{:012d}}.jpg"
        write_json(base / "annotations" / f"captions_{split}{year}.json", captions_content(of_split, name))
        for image_id in of_split:
            write_image(base / f"{split}{year}" / name.format(image_id))
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
        entries = [{"image_id": i, "question": text, "question_id": q} for q, (i, text, _) in of_split.items()]
        answered = [answers_entry(q, i, a, a[0] if a else "") for q, (i, _, a) in reversed(of_split.items())]
        common = {"info": {}, "license": {}, "data_subtype": f"{split}2014", "data_type": "mscoco"}
        write_json(questions_file(root, split), {**common, "task_type": "Open-Ended", "questions": entries})
        write_json(answers_file(root, split), {**common, "annotations": answered})
        write_2014_images(root, split, {i for i, _, _ in of_split.values()})
    return root


def write_okvqa(root: Path, questions: Mapping[str, Mapping[int, tuple[int, str, Sequence[str]]]] = QUESTIONS) -> Path:
    """`root` becomes a folder that holds okvqa and mscoco/mscoco2014. Raw answers are capitalised."""
    for split, of_split in questions.items():
        entries = [{"image_id": i, "question": text, "question_id": q} for q, (i, text, _) in of_split.items()]
        answered = [okvqa_entry(q, i, a) for q, (i, _, a) in reversed(of_split.items())]
        common = {"info": {}, "license": {}, "data_subtype": f"{split}2014", "data_type": "mscoco"}
        folder = root / "okvqa"
        write_json(folder / f"OpenEnded_mscoco_{split}2014_questions.json", {**common, "questions": entries})
        types = {"one": "Vehicles and Transportation", "other": "Other"}
        content = {**common, "question_types": types, "annotations": answered}
        write_json(folder / f"mscoco_{split}2014_annotations.json", content)
        write_2014_images(root, split, {i for i, _, _ in of_split.values()})
    return root


def okvqa_entry(question_id: int, image_id: int, answers: Sequence[str]) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "answer_type": "other",
        "question_type": "one",
        "question_id": question_id,
        "answers": [
            {"answer_id": n, "raw_answer": answer.title(), "answer_confidence": "yes", "answer": answer}
            for n, answer in enumerate(answers, start=1)
        ],
        "confidence": 3,
    }


#: Karpathy's split -> image id -> captions; the order of the captions is the file's.
KARPATHY: dict[str, dict[int, list[str]]] = {
    "train": {9: ["A cat. ", "one cat"], 139: ["two\n dogs"]},
    "restval": {632: ["a bed", "😀 قطة", "e\u0301"]},
    "val": {785: ["a skier"]},
    "test": {776: ["bears", "", "three bears"], 724: ["a stop sign"]},
}


def karpathy_file(split: str, image_id: int) -> str:
    """Where an image lies in the 2014 release."""
    part = "train" if split == "train" else "val"
    return f"{part}2014/COCO_{part}2014_{image_id:012d}.jpg"


def karpathy_content(captions: Mapping[str, Mapping[int, Sequence[str]]] = KARPATHY) -> dict[str, Any]:
    """What dataset_coco.json holds."""
    images = []
    for split, of_split in captions.items():
        for image_id, texts in of_split.items():
            folder, name = karpathy_file(split, image_id).split("/")
            sentences = [
                {"tokens": text.split(), "raw": text, "imgid": len(images), "sentid": 700 - n}
                for n, text in enumerate(texts)
            ]
            entry = {"filepath": folder, "sentids": [s["sentid"] for s in sentences], "filename": name, "split": split}
            images.append({**entry, "imgid": len(images), "sentences": sentences, "cocoid": image_id})
    return {"images": images[::-1], "dataset": "coco"}


def lavis_content(split: str, captions: Mapping[str, Mapping[int, Sequence[str]]] = KARPATHY) -> list[dict[str, Any]]:
    """What coco_karpathy_{train,val,test}.json holds."""
    if split != "train":
        return [{"image": karpathy_file(split, i), "caption": list(texts)} for i, texts in captions[split].items()]
    return [
        {"caption": text, "image": karpathy_file(part, i), "image_id": f"coco_{i}"}
        for part in ("restval", "train")
        for i, texts in captions[part].items()
        for text in texts
    ]


def write_karpathy(root: Path, lavis: bool = False) -> Path:
    """`root` becomes a folder that holds coco-karpathy, in either form, and mscoco/mscoco2014."""
    for split, of_split in KARPATHY.items():
        for image_id in of_split:
            write_image(root / "mscoco" / "mscoco2014" / karpathy_file(split, image_id))
    if lavis:
        for split in ("train", "val", "test"):
            write_json(root / "coco-karpathy" / f"coco_karpathy_{split}.json", lavis_content(split))
    else:
        write_json(root / "coco-karpathy" / "dataset_coco.json", karpathy_content())
    return root


def write_2014_images(root: Path, split: str, image_ids: Collection[int]) -> None:
    (root / "mscoco" / "mscoco2014" / f"{split}2014").mkdir(parents=True, exist_ok=True)
    for image_id in image_ids:
        write_image(vqa_image(root, split, image_id))


def pack(archive: Path, content: Path, within: str = "") -> Path:
    """Moves a file or folder into a zip archive, at its own name below `within`. Images are stored, the rest deflated."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "a") as opened:
        for path in sorted([content, *content.rglob("*")]):
            method = zipfile.ZIP_STORED if path.suffix == ".jpg" else zipfile.ZIP_DEFLATED
            opened.write(path, f"{within}{path.relative_to(content.parent)}", method)
    shutil.rmtree(content) if content.is_dir() else content.unlink()
    return archive


def questions_file(root: Path, split: str) -> Path:
    return root / "vqav2" / f"v2_OpenEnded_mscoco_{split}2014_questions.json"


def answers_file(root: Path, split: str) -> Path:
    return root / "vqav2" / f"v2_mscoco_{split}2014_annotations.json"


def vqa_image(root: Path, split: str, image_id: int) -> Path:
    return root / "mscoco" / "mscoco2014" / f"{split}2014" / f"COCO_{split}2014_{image_id:012d}.jpg"


def read_all(reader: DatasetReader, root: Path | None, task: str) -> dict[str, list[Example]]:
    """The examples of each split, as many as it announces."""
    splits: dict[str, list[Example]] = {}
    for split in reader.read(root, task, Path("unused"), SilentProgress()):
        splits[split.name] = list(split.examples)
        assert split.count == len(splits[split.name])
    return splits


def edit(path: Path, change: Any) -> None:
    """Applies `change` to the content of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
