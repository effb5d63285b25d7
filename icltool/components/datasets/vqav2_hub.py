"""VQAv2 in the layout of HuggingFaceM4/VQAv2: images, questions and answers in one table."""

from __future__ import annotations

from icltool.components.datasets.hub import HubOptions, HubReader, SplitOptions
from icltool.components.datasets.official import counted
from icltool.components.datasets.vqav2 import VQAv2Reader
from icltool.contracts import Example


class VQAv2HubReader(HubReader):
    """Reads a data set with the columns question_type, multiple_choice_answer, answers (records of answer,
    answer_confidence and answer_id), image_id, answer_type, question_id, question and image.

    From the hub with `path=HuggingFaceM4/VQAv2`, or from a local copy of the same layout (--root, or `path=FOLDER`).
    The examples are those that `vqav2` reads from the official files, in the same order, but for the images' paths and
    the groups of a file near_duplicates.json.
    """

    image_namespace = "coco"
    name = "vqav2-hub"
    tasks = ("vqa",)
    options_model = SplitOptions
    published = "HuggingFaceM4/VQAv2"

    def __init__(self, options: SplitOptions) -> None:
        super().__init__(
            HubOptions(
                **options.model_dump(exclude_unset=True),
                image="image",
                question="question",
                answer="multiple_choice_answer",
                answers="answers",
                id="question_id",
                image_id="image_id",
            )
        )

    def _counts(self, split: str, count: int, title: str) -> list[str]:
        official = VQAv2Reader.official[split]
        if count == official:
            return []
        return [f"{title}: {counted(count, 'answered question')} in {split}; the official split has {official:,}"]

    def _ordered(self, examples: list[Example]) -> list[Example]:
        return sorted(examples, key=lambda example: (example.image_id, example.id))
