"""VL-ICL Bench, the tasks from images to text: what a task is must be learned from its demonstrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from icltool.components.datasets.entries import listed, text_of, texts_of
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.contracts import Example, Source, SourceFile, group_code
from icltool.errors import DataError

#: Operators in the order of the answers of a support example.
OPERATORS = ("+", "-", "x")


class VlIclReader(PublishedReader):
    """Reads `support.json` and `query.json` of one task, and its images in `support` and `query`, packed or not, in the folder
    of the task: in --root or in `VL-ICL` there; without --root, below the environment variable VLICL_PATH.

    The index set is support. Examples are numbered by row, since ids of the files repeat. Answers are judged by the published
    rule, which some answers cannot satisfy, and by a fair one.
    """

    tasks = ("vqa",)
    source = Source(
        "huggingface.co/datasets/ys-zong/VL-ICL",
        "MIT",
        (
            SourceFile("query.json", "", "questions"),
            SourceFile("support.json", "", "demonstrations"),
            SourceFile("query.zip", "", "images of the questions"),
            SourceFile("support.zip", "", "images of the demonstrations"),
        ),
    )
    title = "VL-ICL Bench"
    variables = ("VLICL_PATH",)
    folders = ("VL-ICL", "")
    folder: ClassVar[str]
    rule: ClassVar[str] = "text"
    #: (number of support rows, number of queries); None where it is not known.
    official: ClassVar[tuple[int | None, int | None]] = (None, None)

    @property
    def metrics(self) -> Mapping[str, tuple[str, ...]]:
        """See NamesMetrics."""
        return {"vqa": tuple(f"{name}:rule={self.rule}" for name in ("vlicl-accuracy", "vlicl-accuracy-fair"))}

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases = [base / self.folder for base in self.bases(root)]
        base = next((base for base in bases if base.is_dir()), None)
        if base is None:
            raise DataError(
                f"no VL-ICL Bench in {bases[-1].parent}: folder {self.folder} is missing", self.source.hint()
            )
        images = _Images(base, self)
        support = self._listed(base, "support", lambda record, row: self.support_example(record, row, images))
        queries = self._listed(base, "query", lambda record, row: self.query_example(record, row, images))
        repeated = len(queries) - len({identifier for _, identifier in queries})
        remark = f"query.json: {counted(repeated, 'id')} repeated; queries are numbered by row"
        remarks = (remark,) if repeated else ()
        examples = self.with_support([example for example, _ in support], [example for example, _ in queries])
        for name, file, of_split, official, own in (
            ("train", "support.json", [example for example, _ in support], self.official[0], ()),
            ("validation", "query.json", examples, self.official[1], remarks),
        ):
            folder = base if any(example.image for example in of_split) else None
            yield Part(name, (base / file, *images.archives), folder, of_split, len(of_split), official, own)

    def _listed(self, base: Path, name: str, row: Any) -> list[tuple[Example, str]]:
        """The examples of a file, each with its id there."""
        path = self.file([base], f"{name}.json")

        def read(record: Mapping[str, Any], position: int) -> tuple[Example, str]:
            return row(record, position), str(record.get("id", position))

        return listed(path, ("",), read, "an example", self.source.hint())

    def support_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        """An example of the index set. Raises as `listed` expects."""
        return _example(row, record, _answer(record["answer"]), images)

    def query_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        """A query. Raises as `listed` expects."""
        return _example(row, record, _answer(record["answer"]), images)

    def with_support(self, support: Sequence[Example], queries: Sequence[Example]) -> list[Example]:
        """The queries with their support sets, if they have any."""
        return list(queries)


class OperatorReader(VlIclReader):
    __doc__ = f"""{VlIclReader.__doc__}
    `operator_induction`: two digits in an image, and an operator (+, -, x) to be found out from the demonstrations, which are
    shown with the result of the query's operator.
    """

    name = "vlicl-operator"
    folder = "operator_induction"
    rule = "number"
    official = (80, 60)

    def support_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        results = record["answer"]
        if not isinstance(results, list) or len(results) != len(OPERATORS):
            raise ValueError(f"its answer is {results!r:.40}, not one for each of + - x")
        labels = {operator: _answer(result) for operator, result in zip(OPERATORS, results, strict=True)}
        return replace(self.own(_example(row, record, labels["+"], images), images), labels=labels)

    def query_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        if record["operator"] not in OPERATORS:
            raise ValueError(f"its operator is {record['operator']!r}, not + - x")
        return replace(self.own(super().query_example(record, row, images), images), rule=record["operator"])

    def own(self, example: Example, images: _Images) -> Example:
        """The example with the identities of its images."""
        return example


class InterleavedOperatorReader(OperatorReader):
    __doc__ = f"""{VlIclReader.__doc__}
    `operator_induction_interleaved`: as `vlicl-operator` with an image for each digit. There is one image per digit, so nearly
    every demonstration shares one with its query: the leak guard compares the pair of images.
    """

    name = "vlicl-operator-interleaved"
    folder = "operator_induction_interleaved"

    def own(self, example: Example, images: _Images) -> Example:
        pair = "\n".join(image.rpartition("/")[2] for image in example.images)
        codes = [group_code(f"{pair}\n{place}") for place in range(len(example.images))]
        return replace(example, image_id=codes[0], more_image_ids=tuple(codes[1:]))


class ClevrReader(VlIclReader):
    __doc__ = f"""{VlIclReader.__doc__}
    `clevr`: how many objects have an attribute, such as "material: rubber".
    """

    name = "vlicl-clevr"
    folder = "clevr"
    official = (None, 200)


class TextOcrReader(VlIclReader):
    __doc__ = f"""{VlIclReader.__doc__}
    `textocr`: the text in a red box.
    """

    name = "vlicl-textocr"
    folder = "textocr"


class OpenMiReader(VlIclReader):
    __doc__ = f"""{VlIclReader.__doc__}
    `open_mi`: names of objects that are invented for each query. The same words mean other things in other queries, so a query
    is shown examples of its own support set alone; `--method episode` chooses among them as published.
    """

    name = "vlicl-open-mi"
    folder = "open_mi"

    def query_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        answer = text_of(record["answer"])
        names = [answer, *(name for name in record["support"] if name != answer)]
        if answer not in record["support"]:
            raise ValueError(f"its answer {answer!r} is no class of its support set")
        files = [file for name in names for file in texts_of(record["support"][name]["images"])]
        return replace(super().query_example(record, row, images), fields={"support": "\n".join(files)})

    def with_support(self, support: Sequence[Example], queries: Sequence[Example]) -> list[Example]:
        """The support sets, those of the query's own class first."""
        ids = {example.image_id: example.id for example in support}
        placed = []
        for query in queries:
            files = query.fields["support"].split("\n")
            codes = [group_code(file) for file in files]
            if unknown := [file for file, code in zip(files, codes, strict=True) if code not in ids]:
                raise DataError(f"query.json: entry {query.id} has support images that support.json lacks: {few(unknown)}",
                                self.source.hint())  # fmt: skip
            placed.append(replace(query, support=tuple(ids[code] for code in codes), fields={}))
        return placed


class MatchingMiReader(VlIclReader):
    __doc__ = f"""{VlIclReader.__doc__}
    `matching_mi`: whether two images have in common what the demonstrations have. A demonstration is a pair with the answer
    "yes", followed by one with "no"; the number of shots counts both as one.
    """

    name = "vlicl-matching"
    folder = "matching_mi"
    rule = "yes-no"

    def support_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        same, other = (
            _example(row, record[kind], _answer(record[kind]["answer"]), images) for kind in ("same", "diff")
        )
        return replace(same, followed_by=(other,))


class _Images:
    """The images of a task by the paths in its files, unpacked or in the archives beside these."""

    def __init__(self, base: Path, reader: VlIclReader) -> None:
        self._base, self._reader = base, reader
        self._folders: dict[str, Path] = {}

    def path(self, name: str) -> str:
        """The path of an image: that of the file below the task's folder. Raises DataError if its folder is missing."""
        inner = PurePosixPath(name.removeprefix(f"{self._base.name}/"))
        folder = inner.parts[0] if len(inner.parts) > 1 else "."
        if folder not in self._folders:
            self._folders[folder] = self._reader.images([self._base], [folder], [f"{folder}.zip"])
        return str(self._folders[folder].joinpath(*inner.parts[1:] or inner.parts))

    @property
    def archives(self) -> tuple[Path, ...]:
        """The archives that images are in."""
        return tuple(self._base / f"{name}.zip" for name, at in self._folders.items() if at != self._base / name)


def _example(row: int, record: Mapping[str, Any], answer: str, images: _Images) -> Example:
    names = record["image"]
    if not isinstance(names, list) or not names:
        raise TypeError(f"its image is {names!r:.40}, not a list of images")
    question = one_line(text_of(record["question"]))
    first, *more = texts_of(names)
    return Example(
        id=row,
        image=images.path(first),
        image_id=group_code(first),
        text=question,
        label=answer,
        references=(answer,),
        question=question,
        more_images=tuple(map(images.path, more)),
        more_image_ids=tuple(map(group_code, more)),
    )


def _answer(value: object) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise TypeError(f"its answer is {value!r:.40}, neither a text nor a number")
    return str(value)
