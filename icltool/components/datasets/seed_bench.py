"""SEED-Bench and SEED-Bench-2: questions about images with four choices, by type of ability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from icltool.components.datasets.entries import expect_once, listed, text_of, texts_of
from icltool.components.datasets.held_out import held_out
from icltool.components.datasets.json_stream import read_json
from icltool.components.datasets.labelled_rows import whole_or_code
from icltool.components.datasets.official import counted, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.contracts import IMAGE_MARKER, Example, Options, Source, SourceFile, group_code
from icltool.errors import DataError

_LETTERS = "ABCD"
#: The place of an image in a question of SEED-Bench-2.
_PLACE = "<img>"


class SeedBenchOptions(Options):
    """The index set, as the benchmark has none."""

    index: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the images that becomes the index set, drawn by seed; default: queries only, with demonstrations "
        "from another data set (--index-dataset)",
    )
    seed: int = Field(0, description="random seed of `index`")


class _Question(NamedTuple):
    """A question of the file; `images` are file names in the folder of `source`."""

    id: str
    text: str
    choices: tuple[str, ...]
    label: str
    source: str
    images: tuple[str, ...]
    kind: int
    level: str


class SeedBenchReader(PublishedReader):
    """Reads `SEED-Bench.json` and the images in `SEED-Bench-image`, packed or not, in --root; without --root, below the
    environment variable SEED_BENCH_PATH.

    Questions about videos (types 10 to 12) are left out. Figures are broken down by the type of question. The published
    evaluation ranks the texts of the choices, as `--rank-by text` does.
    """

    name = "seed-bench"
    tasks = ("multiple-choice",)
    options_model = SeedBenchOptions
    source = Source(
        "huggingface.co/datasets/AILab-CVC/SEED-Bench",
        "Apache 2.0; of the images, the terms of their sources",
        (
            SourceFile("SEED-Bench.json", "", "questions"),
            SourceFile("SEED-Bench-image.zip", "", "images of types 1 to 9"),
        ),
    )
    title = "SEED-Bench"
    variables = ("SEED_BENCH_PATH",)
    folders = ("SEED-Bench", "")
    image_namespace = "seed-bench"
    file_name: ClassVar[str] = "SEED-Bench.json"
    #: The number of questions in the file (None: not known).
    official: ClassVar[int | None] = 19_242
    #: Folders that may hold the images, by what an entry says of their source ("": entries say nothing).
    image_folders: ClassVar[Mapping[str, tuple[str, ...]]] = {"": ("SEED-Bench-image",)}
    #: The first of the types that are left out, and what these are.
    left_out: ClassVar[tuple[int, str]] = (10, "about a video")

    def __init__(self, options: SeedBenchOptions) -> None:
        self.options = options

    @property
    def queries_only(self) -> bool:
        """See HasQueriesOnly."""
        return self.options.index is None

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases, hint = self.bases(root), self.source.hint()
        path = self.file(bases, self.file_name)
        kinds = _kinds(path, hint)
        questions = listed(path, ("questions",), self._question, "a question with four choices", hint)
        usable = [question for question in questions if question is not None]
        expect_once(str(path), (question.id for question in usable), hint)
        folders = {
            source: self.images(bases, names, [f"{name}.zip" for name in names])
            for source, names in self.image_folders.items()
            if any(question.source == source for question in usable)
        }
        examples = [_example(question, folders[question.source], kinds, path, hint) for question in usable]
        remarks: tuple[str, ...] = ()
        if len(usable) < len(questions):
            remarks = (f"{path.name}: {counted(len(questions) - len(usable), 'question')} {self.left_out[1]} left out",)
        first, *more = folders.values() or (None,)
        if self.options.index is not None:
            train, examples = held_out(examples, 1 - self.options.index, self.options.seed, path.name)
            yield Part("train", (path,), first, train, len(train), None, more_folders=tuple(more))
        yield Part(
            "validation", (path,), first, examples, len(questions), self.official, remarks, more_folders=tuple(more)
        )

    def _question(self, record: Mapping[str, Any], _: int) -> _Question | None:
        """The question of an entry; None if it is left out. Raises as `row` of `listed`."""
        kind, files = record["question_type_id"], record.get("data_id")
        if type(kind) is not int:
            raise TypeError(f"question_type_id is {kind!r}")
        if kind >= self.left_out[0] or (isinstance(files, str) and "video" in str(record["data_type"]).lower()):
            return None  # what else such an entry holds does not matter
        choices = tuple(one_line(str(record[f"choice_{letter.lower()}"])) for letter in _LETTERS)
        if not all(choices):
            raise ValueError("a choice is empty")
        answer = text_of(record["answer"])
        if len(answer) != 1 or answer not in _LETTERS:
            raise ValueError(f"its answer is {answer!r}, which is none of A to D")
        source = text_of(record.get("data_source", "")) if "" not in self.image_folders else ""
        if source not in self.image_folders:
            raise ValueError(f"its data_source is {source!r}, which is none of {', '.join(self.image_folders)}")
        images = (files,) if isinstance(files, str) else texts_of(files)
        if not all(images) or not images:
            raise ValueError("it has no image")
        label, level = choices[_LETTERS.index(answer)], str(record.get("level", ""))
        text = text_of(record["question"])
        return _Question(str(record["question_id"]), text, choices, label, source, images, kind, level)


class SeedBench2Reader(SeedBenchReader):
    """Reads `SEED-Bench_v2_level1_2_3.json` and the images in `cc3m-image` and `SEED-Bench-2-image`, packed or not, in --root;
    without --root, below the environment variable SEED_BENCH_2_PATH.

    A question may have several images, at the places that it marks, or before it; of a video it has the frames. Questions
    whose choices or answers are images (types 25 to 27) are left out. Figures are broken down by the type of question and
    by level.
    """

    name = "seed-bench-2"
    source = Source(
        "huggingface.co/datasets/AILab-CVC/SEED-Bench-2",
        "Apache 2.0; of the images, the terms of their sources",
        (
            SourceFile("SEED-Bench_v2_level1_2_3.json", "", "questions"),
            SourceFile("cc3m-image.zip", "", "images of types 1 to 9"),
            SourceFile("SEED-Bench-2-image.zip.*", "", "the other images; join the parts to one archive"),
        ),
    )
    title = "SEED-Bench-2"
    variables = ("SEED_BENCH_2_PATH",)
    folders = ("SEED-Bench-2", "")
    file_name = "SEED-Bench_v2_level1_2_3.json"
    official = None
    image_folders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cc3m": ("cc3m-image", "SEED-Bench-image"),
        "SEED-Bench v2": ("SEED-Bench-2-image",),
    }
    left_out = (25, "about a video file, or with images as answers,")


def _kinds(path: Path, hint: str) -> dict[int, str]:
    """The names of the types of questions."""
    content = read_json(path, hint, lambda key, entry: None)
    named = content.get("question_type") if isinstance(content, dict) else None
    if not isinstance(named, dict):
        raise DataError(f"{path} has no object 'question_type'", hint)
    return {number: str(name) for name, number in named.items() if isinstance(number, int)}


def _example(question: _Question, folder: Path, kinds: Mapping[int, str], path: Path, hint: str) -> Example:
    """With images at their places if the question marks any."""
    plain = question.text.replace(IMAGE_MARKER, "< image>")
    placed = plain.count(_PLACE)
    if placed and placed != len(question.images):
        raise DataError(
            f"{path}: question {question.id} has {counted(len(question.images), 'image')} and places for {placed}", hint
        )
    text = one_line(plain.replace(_PLACE, IMAGE_MARKER))
    first, *more = (str(folder / image) for image in question.images)
    first_id, *more_ids = map(group_code, question.images)
    return Example(
        id=whole_or_code(question.id),
        image=first,
        image_id=first_id,
        text=one_line(plain.replace(_PLACE, " ")),
        label=question.label,
        references=(question.label,),
        question=text,
        choices=question.choices,
        more_images=tuple(more),
        more_image_ids=tuple(more_ids),
        images_in_text=bool(placed),
        aspects={
            "type": kinds.get(question.kind, str(question.kind)),
            **({"level": question.level} if question.level else {}),
        },
    )
