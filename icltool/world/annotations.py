"""The annotation files of a world, with the fields of the official ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icltool.world.render import SIZE
from icltool.world.scenes import Lexicon, Scene

#: The questions of VQA about an image.
QUESTIONS = ("what colour?", "what shape?")

#: The splits as named in official files: index scenes, held-out scenes.
SPLITS = ("train", "val")
#: The template of the first caption of every image, which is the label, and those of the four others.
LABEL = "a {} {}"
PARAPHRASES = ("one {} {}", "the {} {}", "a {} {} here", "there is a {} {}", "this is a {} {}", "here is the {} {}")
CAPTIONS = 5
ANSWERS, RIGHT_ANSWERS = 10, 7
#: One in this many images has both questions.
BOTH_ASKED = 20
_DATE = "2024-01-01"
_INFO = {
    "description": "embedded world: coloured shapes, named in nonce words",
    "url": "",
    "version": "1.0",
    "year": 2024,
    "contributor": "icltool",
    "date_created": _DATE,
}
_LICENCE = {"url": "", "id": 1, "name": "MIT"}


@dataclass(frozen=True)
class Shot:
    """One image: its id and the scene that it shows."""

    image_id: int
    scene: Scene


def captions_file(shots: Sequence[Shot], lexicon: Lexicon, seed: int, split: str) -> dict[str, object]:
    """The content of captions_{train,val}2017.json: five captions per image, the label first by id."""
    images = [
        {
            "license": 1,
            "file_name": f"{shot.image_id:012d}.jpg",
            "coco_url": "",
            "height": SIZE,
            "width": SIZE,
            "date_captured": f"{_DATE} 00:00:00",
            "flickr_url": "",
            "id": shot.image_id,
        }
        for shot in shots
    ]
    rng = np.random.default_rng([0xCA97, seed, SPLITS.index(split)])
    ids = np.cumsum(rng.integers(1, 30, CAPTIONS * len(shots)))
    annotations = []
    for position, shot in enumerate(shots):
        chosen = [PARAPHRASES[i] for i in rng.permutation(len(PARAPHRASES))[: CAPTIONS - 1]]
        for number, form in enumerate([LABEL, *chosen]):
            caption = form.format(*lexicon.words(shot.scene))
            annotation_id = int(ids[position * CAPTIONS + number])
            annotations.append({"image_id": shot.image_id, "id": annotation_id, "caption": caption})
    shuffled = [
        annotations[i] for i in rng.permutation(len(annotations))
    ]  # as in the official files, captions of an image are not adjacent
    return {"info": _INFO, "licenses": [_LICENCE], "images": images, "annotations": shuffled}


def vqa_files(
    shots: Sequence[Shot], lexicon: Lexicon, seed: int, split: str
) -> tuple[dict[str, object], dict[str, object]]:
    """The contents of the question file and of the annotation file of a split."""
    rng = np.random.default_rng([0x09A, seed, SPLITS.index(split)])
    questions, annotations = [], []
    for shot in shots:
        both, first = rng.integers(BOTH_ASKED) == 0, int(rng.integers(len(QUESTIONS)))
        for number, attribute in enumerate([first, 1 - first] if both else [first]):
            question_id = shot.image_id * 1000 + number
            questions.append({"image_id": shot.image_id, "question": QUESTIONS[attribute], "question_id": question_id})
            right = lexicon.words(shot.scene)[attribute]
            others = [word for word in (lexicon.colours, lexicon.shapes)[attribute] if word != right]
            annotations.append(
                {
                    "question_type": QUESTIONS[attribute].rstrip("?"),
                    "multiple_choice_answer": right,
                    "answers": _answers(right, others, rng),
                    "image_id": shot.image_id,
                    "answer_type": "other",
                    "question_id": question_id,
                }
            )
    common: dict[str, object] = {
        "info": _INFO,
        "license": _LICENCE,
        "data_subtype": f"{split}2014",
        "data_type": "mscoco",
    }
    question_file = {**common, "task_type": "Open-Ended", "questions": questions}
    return question_file, {**common, "annotations": annotations}


def _answers(right: str, others: Sequence[str], rng: np.random.Generator) -> list[dict[str, object]]:
    """Ten answers: at least seven are right, the others are other words of the same attribute."""
    deviating = int(rng.integers(ANSWERS - RIGHT_ANSWERS + 1))
    answers = [right] * (ANSWERS - deviating) + [others[i] for i in rng.integers(len(others), size=deviating)]
    return [
        {
            "answer": answers[i],
            "answer_confidence": "yes" if answers[i] == right else "maybe",
            "answer_id": number,
        }
        for number, i in enumerate(rng.permutation(ANSWERS), start=1)
    ]


def near_duplicates(shots: Mapping[str, Sequence[Shot]]) -> dict[str, dict[str, str]]:
    """Image id -> scene of both splits: images of one scene are near-duplicates."""
    return {split: {str(shot.image_id): shot.scene.name for shot in shots[split]} for split in SPLITS}
