"""A-OKVQA: questions on COCO images that need outside knowledge, with choices, free answers and rationales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from icltool.components.datasets.coco2014_images import find_images
from icltool.components.datasets.entries import expect_once, flag_of, listed, text_of, texts_of, whole
from icltool.components.datasets.labelled_rows import whole_or_code
from icltool.components.datasets.official import counted, one_line
from icltool.components.datasets.places import folder_of, on_disk
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.datasets.vqa import most_frequent
from icltool.contracts import Example, Options, Source, SourceFile

#: Our split name -> (the name in files, number of questions).
SPLITS: Mapping[str, tuple[str, int]] = {"train": ("train", 17_056), "validation": ("val", 1_145)}
#: Folders that may hold the images of COCO 2017, packed or not.
_BELOW = ("mscoco/mscoco2017", "mscoco2017", "images", "coco/images", "coco", "")


class AokvqaOptions(Options):
    """Images and rationales."""

    images: Literal["2017", "2014"] = Field(
        "2017", description="release of COCO that the images are from: 2014 for the files of LAVIS, which name those"
    )
    rationale: Literal["first", "all"] = Field("first", description="rationale of an example: the first, or all three")


class AokvqaReader(PublishedReader):
    """Reads `aokvqa_v1p0_{train,val}.json` in --root (or there in `aokvqa`, `annotations` or `aokvqa/annotations`) and the
    images of COCO 2017, in `train2017` and `val2017` there, in the official layout of COCO, or below COCO_PATH; without
    --root, below the environment variable AOKVQA_PATH.

    The index set is train, the queries are val. In task multiple-choice, examples have four choices. In task vqa, the label
    is the most frequent direct answer and all ten are the references; questions that are marked difficult to answer directly
    are not queries, as in the official evaluation, but may be demonstrations.
    """

    image_namespace = "coco"
    name = "aokvqa"
    tasks = ("multiple-choice", "vqa")
    metrics: ClassVar[Mapping[str, tuple[str, ...]]] = {"vqa": ("aokvqa-accuracy", "vqa-accuracy")}
    options_model = AokvqaOptions
    source = Source(
        "allenai.org/project/a-okvqa",
        "Apache 2.0; of the images, the terms of COCO",
        (
            SourceFile("aokvqa_v1p0_train.json", "", "17,056 questions"),
            SourceFile("aokvqa_v1p0_val.json", "", "1,145 questions"),
            SourceFile("train2017.zip and val2017.zip of COCO (cocodataset.org)", "19 GB", "images"),
        ),
    )
    title = "A-OKVQA"
    variables = ("AOKVQA_PATH",)
    folders = ("aokvqa", "aokvqa/annotations", "annotations", "")

    def __init__(self, options: AokvqaOptions) -> None:
        self.options = options

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases = self.bases(root)
        for name, (split, official) in SPLITS.items():
            path = self.file(bases, f"aokvqa_v1p0_{split}.json")
            folders = self._folders(bases, path, split)

            def row(
                record: Mapping[str, Any], _: int, split: str = split, folders: Mapping[str, Path] = folders
            ) -> tuple[Example, bool, str]:
                if record["split"] != split:
                    raise ValueError(f"its split is {record['split']!r}, not {split!r}")
                example = self._example(record, task, folders)
                return example, flag_of(record["difficult_direct_answer"]), record["question_id"]

            rows = listed(path, ("",), row, "a question with choices and answers", self.source.hint())
            expect_once(str(path), (identifier for *_, identifier in rows), self.source.hint())
            left_out = task == "vqa" and name == "validation"
            examples = [example for example, difficult, _ in rows if not (difficult and left_out)]
            remarks = []
            if len(examples) < len(rows):
                number = counted(len(rows) - len(examples), "question")
                remarks.append(f"{path.name}: {number} marked difficult to answer directly left out")
            first, *more = folders.values()
            # records hold paths of images, so that others elsewhere are another version of the data set
            elsewhere = [folder for folder in folders.values() if not folder.is_relative_to(bases[-1])]
            files = (path, *on_disk(elsewhere))
            yield Part(name, files, first, examples, len(rows), official, tuple(remarks), more_folders=tuple(more))

    def _folders(self, bases: Sequence[Path], path: Path, split: str) -> dict[str, Path]:
        """The folders of images by name. The splits of A-OKVQA are those of COCO 2017; images of 2014 are in both folders."""
        if self.options.images == "2014":
            folders = find_images(bases[-1], path.parent, self.title).folders
            return {f"{part}2014": folder for part, folder in folders.items()}
        name = f"{split}2017"
        coco = folder_of("COCO_PATH")
        starts = [*bases, *([coco] if coco is not None else [])]
        places = [start / below for below in _BELOW for start in starts]
        return {name: self.images(places, [name], [f"{name}.zip"])}

    def _example(self, record: Mapping[str, Any], task: str, folders: Mapping[str, Path]) -> Example:
        choices, correct = tuple(map(one_line, texts_of(record["choices"]))), record["correct_choice_idx"]
        if not all(choices):
            raise ValueError("a choice is empty")
        if type(correct) is not int or not 0 <= correct < len(choices):
            raise ValueError(f"correct_choice_idx {correct!r} is none of its {len(choices)} choices")
        answers = texts_of(record["direct_answers"])
        if not any(map(str.strip, answers)):
            raise ValueError("it has no direct answers")
        question, image_id = one_line(text_of(record["question"])), whole(record["image_id"])
        label = choices[correct] if task == "multiple-choice" else one_line(most_frequent(answers))
        rationales = [" ".join(text.split()) for text in texts_of(record["rationales"])]
        return Example(
            id=whole_or_code(text_of(record["question_id"])),
            image=self._image(record, image_id, folders),
            image_id=image_id,
            text=question,
            label=label,
            references=(label,) if task == "multiple-choice" else answers,
            question=question,
            choices=choices if task == "multiple-choice" else (),
            rationale=" ".join(rationales[: None if self.options.rationale == "all" else 1]),
        )

    def _image(self, record: Mapping[str, Any], image_id: int, folders: Mapping[str, Path]) -> str:
        if self.options.images == "2017":
            [folder] = folders.values()
            return str(folder / f"{image_id:012d}.jpg")
        if "image" not in record:
            raise ValueError("it names no image of COCO 2014, which only the files of LAVIS do")
        name, _, file = text_of(record["image"]).rpartition("/")
        part = name.rpartition("/")[2]
        if part not in folders:
            raise ValueError(f"its image {record['image']!r} is in neither of {' and '.join(folders)}")
        return str(folders[part] / file)
