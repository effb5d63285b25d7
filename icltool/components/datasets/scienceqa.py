"""ScienceQA: multiple-choice questions of school science, half of them with an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from icltool.components.datasets.entries import converted, expect_once, text_of, texts_of
from icltool.components.datasets.json_stream import read_json
from icltool.components.datasets.labelled_rows import whole_or_code
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.datasets.reader import unofficial
from icltool.contracts import Example, Options, Source, SourceFile
from icltool.errors import DataError

#: Split of the file -> (folder of its images, number of questions, number of those with an image; None: not published).
SPLITS: Mapping[str, tuple[str, int, int | None]] = {
    "train": ("train", 12_726, 6_218),
    "val": ("val", 4_241, 2_097),
    "test": ("test", 4_241, 2_017),
    "minival": ("val", 424, None),
    "minitest": ("test", 424, None),
}
_PROBLEMS, _SPLIT_IDS = "problems.json", "pid_splits.json"


class ScienceQAOptions(Options):
    """Which questions, and the queries."""

    queries: Literal["test", "val", "minival", "minitest"] = Field("test", description="split of the queries")
    with_image: bool = Field(False, description="keep only questions with an image, which others call ScienceQA-IMG")


class ScienceQAReader(PublishedReader):
    """Reads `problems.json` and `pid_splits.json`, and the images `{train,val,test}/ID/image.png` in --root, in `images` there
    or in train.zip, val.zip and test.zip; without --root, below the environment variable SCIENCEQA_PATH.

    The index set is train. A question is shown after its hint. Its rationale is the lecture, then the solution. Figures are
    broken down as officially: by subject, by context (a text, an image, neither), by grade and by topic.
    """

    name = "scienceqa"
    tasks = ("multiple-choice",)
    options_model = ScienceQAOptions
    source = Source(
        "scienceqa.github.io",
        "CC BY-NC-SA 4.0",
        (
            SourceFile(_PROBLEMS, "", "21,208 questions"),
            SourceFile(_SPLIT_IDS, "", "the ids of each split"),
            SourceFile("train.zip, val.zip, test.zip", "", "10,332 images"),
        ),
    )
    title = "ScienceQA"
    variables = ("SCIENCEQA_PATH",)
    folders = ("scienceqa", "data/scienceqa", "data", "")

    def __init__(self, options: ScienceQAOptions) -> None:
        self.options = options

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases = self.bases(root)
        path, ids_path = self.file(bases, _PROBLEMS), self.file(bases, _SPLIT_IDS)
        problems, splits = self._objects(path, ids_path)
        for name, split in (("train", "train"), ("validation", self.options.queries)):
            folder_name, *official = SPLITS[split]
            ids = self._ids(ids_path, splits, split)
            if missing := [identifier for identifier in ids if identifier not in problems]:
                raise DataError(
                    f"{path} lacks {counted(len(missing), 'question')} that {ids_path.name} has in {split}: {few(missing)}",
                    self.source.hint(),
                )
            folder = self._folder(bases, folder_name, [problems[i] for i in ids])

            def row(
                record: Mapping[str, Any],
                position: int,
                ids: list[str] = ids,
                at: Path | None = folder,
                of: str = folder_name,
            ) -> Example:
                if record["split"] != of:
                    raise ValueError(f"its split is {record['split']!r}, but {ids_path.name} lists it in {of}")
                return _example(ids[position], record, at)

            examples = [
                converted(problems[i], row, place, f"{path}: question {i} is not a question", self.source.hint())
                for place, i in enumerate(ids)
            ]
            if self.options.with_image:
                examples = [example for example in examples if example.image]
            known = official[self.options.with_image]
            remarks = [] if known is None else unofficial(f"{self.title} {split}", len(examples), "question", known)
            yield Part(name, (path, ids_path), folder, examples, len(examples), None, tuple(remarks))

    def _objects(self, *paths: Path) -> list[dict[str, Any]]:
        contents = []
        for path in paths:
            content = read_json(path, self.source.hint(), lambda _, entry: entry)
            if not isinstance(content, dict):
                raise DataError(f"{path} is not an object", self.source.hint())
            contents.append(content)
        return contents

    def _ids(self, path: Path, splits: Mapping[str, Any], split: str) -> list[str]:
        """The ids that the file lists in a split, each once."""
        ids = splits.get(split)
        if not isinstance(ids, list) or not all(isinstance(identifier, str) for identifier in ids):
            raise DataError(f"{path} has no list {split!r} of texts", self.source.hint())
        expect_once(f"{path}, {split},", ids, self.source.hint())
        return ids

    def _folder(self, bases: list[Path], name: str, problems: list[Any]) -> Path | None:
        """The folder of a split's images; None if it has none. Raises DataError for a folder in each of the two layouts."""
        if not any(isinstance(problem, dict) and problem.get("image") for problem in problems):
            return None
        for base in bases:
            plain, below = base / name, base / "images" / name
            if plain.is_dir() and below.is_dir() and not plain.samefile(below):
                raise DataError(
                    f"{base} holds images of {name} twice: in {plain} and in {below}", "remove one of the two"
                )
        return self.images(bases, [name, f"images/{name}"], [f"{name}.zip"])


def _example(identifier: str, record: Mapping[str, Any], folder: Path | None) -> Example:
    choices, answer = tuple(map(one_line, texts_of(record["choices"]))), record["answer"]
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError(f"answer {answer!r} is none of its {len(choices)} choices")
    if not all(choices):
        raise ValueError("a choice is empty")
    question, hint = one_line(text_of(record["question"])), one_line(text_of(record["hint"]))
    image = record["image"]
    number = whole_or_code(identifier)
    return Example(
        id=number,
        image=str(folder / identifier / text_of(image)) if image and folder is not None else "",
        image_id=number,
        text=question,
        label=choices[answer],
        references=(choices[answer],),
        question=f"{hint} {question}".strip(),
        choices=choices,
        rationale=" ".join(f"{text_of(record['lecture'])} {text_of(record['solution'])}".split()),
        aspects=official_groups(record, bool(hint), bool(image)),
    )


def official_groups(record: Mapping[str, Any], hint: bool, image: bool) -> dict[str, str]:
    """The groups of the official table, for a problem with or without a hint and an image."""
    says = {True: "yes", False: "no"}
    grade = text_of(record["grade"]).removeprefix("grade")
    if not grade.isdecimal():
        raise ValueError(f"its grade is {record['grade']!r}")
    return {
        "subject": text_of(record["subject"]),
        "text context": says[hint],
        "image context": says[image],
        "no context": says[not hint and not image],
        "grade": "1-6" if int(grade) <= 6 else "7-12",
        "topic": text_of(record["topic"]),
    }
