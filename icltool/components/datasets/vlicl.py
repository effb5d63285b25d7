"""VL-ICL Bench, the tasks from images to text: what a task is must be learned from its demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeAlias

from icltool.components.datasets.entries import listed, text_of, texts_of
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.contracts import Example, Source, SourceFile, group_code
from icltool.errors import DataError

#: Operators in the order of the answers of a support example.
OPERATORS = ("+", "-", "x")
#: An example from its record and its position in the file.
_Row: TypeAlias = Callable[[Mapping[str, Any], int], Example]


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
    #: The rule of the fair figure, if it is another.
    fair_rule: ClassVar[str | None] = None
    #: (number of support rows, number of queries); None where it is not known.
    official: ClassVar[tuple[int | None, int | None]] = (None, None)

    @property
    def metrics(self) -> Mapping[str, tuple[str, ...]]:
        """See NamesMetrics."""
        return {"vqa": (f"vlicl-accuracy:rule={self.rule}", f"vlicl-accuracy-fair:rule={self.fair_rule or self.rule}")}

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        base = self._base(root)
        images = _Images(base, self)
        support, of_support = self._listed(base, "support", partial(self.support_example, images=images))
        queries, of_queries = self._listed(base, "query", partial(self.query_example, images=images))
        support, queries = self.with_support(support, queries)
        for name, file, of_split, official, remarks in (
            ("train", "support.json", support, self.official[0], of_support),
            ("validation", "query.json", queries, self.official[1], of_queries),
        ):
            yield Part(name, (base / file, *images.archives), base, of_split, len(of_split), official, remarks)

    def _base(self, root: Path | None) -> Path:
        """The folder of the task. Raises DataError if there is none, or one in each of the two places."""
        bases = [base / self.folder for base in self.bases(root)]
        there = [base for base in bases if base.is_dir()]
        if not there:
            raise DataError(
                f"no VL-ICL Bench in {bases[-1].parent}: folder {self.folder} is missing", self.source.hint()
            )
        if len(there) > 1:
            raise DataError(
                f"{bases[-1].parent} holds {self.folder} twice: {' and '.join(map(str, there))}",
                "remove one of the two, or name the folder above the right one with --root",
            )
        return there[0]

    def _listed(self, base: Path, name: str, row: _Row) -> tuple[list[Example], tuple[str, ...]]:
        """The examples of a file, and a remark on ids that it repeats. Raises DataError for the file of the other split."""
        path = self.file([base], f"{name}.json")

        def read(record: Mapping[str, Any], position: int) -> tuple[Example, str]:
            return row(record, position), str(record.get("id", position))

        rows = listed(path, ("",), read, "an example", self.source.hint())
        ids = [identifier for _, identifier in rows]
        other = "query" if name == "support" else "support"
        if ids and all(identifier.startswith(f"{self.folder}_{other}_") for identifier in ids):
            raise DataError(f"{path} has the examples of {other}.json, such as {ids[0]}", self.source.hint())
        repeated = len(ids) - len(set(ids))
        noun = "queries" if name == "query" else "examples"
        remark = f"{name}.json: {counted(repeated, 'id')} repeated; {noun} are numbered by row"
        return [example for example, _ in rows], (remark,) if repeated else ()

    def support_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        """An example of the index set. Raises as `listed` expects."""
        return _example(row, record, _answer(record["answer"]), images)

    def query_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        """A query. Raises as `listed` expects."""
        return _example(row, record, _answer(record["answer"]), images)

    def with_support(self, support: list[Example], queries: list[Example]) -> tuple[list[Example], list[Example]]:
        """(index set, queries) with their support sets, if they have any."""
        return support, queries


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
        example = self.own(super().query_example(record, row, images), images)
        return replace(example, rule=record["operator"], aspects={"operator": record["operator"]})

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
    fair_rule = "number"
    official = (None, 200)

    def query_example(self, record: Mapping[str, Any], row: int, images: _Images) -> Example:
        example = super().query_example(record, row, images)
        attribute, colon, _ = example.question.partition(":")
        return replace(example, aspects={"attribute": attribute.strip()} if colon else {})


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
        """A query; `fields` are the images of each class for `with_support`, those of its own class first."""
        answer, classes = text_of(record["answer"]), record["support"]
        if answer not in classes:
            raise ValueError(f"its answer {answer!r} is not a class of its support set")
        names = [answer, *(name for name in classes if name != answer)]
        files = {name: "\n".join(texts_of(classes[name]["images"])) for name in names}
        if empty := [name for name, own in files.items() if not own]:
            raise ValueError(f"its support set has no image of {few(empty)}")
        return replace(super().query_example(record, row, images), fields=files)

    def with_support(self, support: list[Example], queries: list[Example]) -> tuple[list[Example], list[Example]]:
        """(index set, queries) with their support sets, those of the own class first. An example of the index set has that of
        the query whose support set it is in, so that it is shown no words of other queries either."""
        labels = {example.image_id: example.label for example in support}
        ids = {(example.image_id, example.label): example.id for example in support}
        sets: dict[int, tuple[int, ...]] = {}
        placed = []
        for query in queries:
            classes = {name: files.split("\n") for name, files in query.fields.items()}
            self._expect_same(query, classes, labels)
            own = {name: [ids[group_code(file), name] for file in files] for name, files in classes.items()}
            placed.append(replace(query, support=tuple(chain(*own.values())), fields={}))
            for name, members in own.items():
                ordered = (*members, *chain(*(own[other] for other in own if other != name)))
                for member in members:
                    sets.setdefault(member, ordered)
        return [replace(example, support=sets.get(example.id, ())) for example in support], placed

    def _expect_same(self, query: Example, classes: Mapping[str, Sequence[str]], labels: Mapping[int, str]) -> None:
        """Raises DataError for an image of the support set that support.json lacks, or has another answer for."""
        files = [(file, name, labels.get(group_code(file))) for name, own in classes.items() for file in own]
        if unknown := [file for file, _, there in files if there is None]:
            fault = f"has support images that support.json lacks: {few(unknown)}"
        elif other := [f"{file} ({name}, not {there})" for file, name, there in files if there != name]:
            fault = f"has support images that are of another class in support.json: {few(other)}"
        else:
            return
        raise DataError(f"query.json: entry {query.id} {fault}", self.source.hint())


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
