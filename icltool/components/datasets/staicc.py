"""The text classifications of StaICC, from the Python package of that name."""

from __future__ import annotations

import importlib.util
import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, get_args

from pydantic import Field

from icltool.components.datasets.labelled_rows import with_text_groups
from icltool.components.datasets.official import counted, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.tasks import task_named
from icltool.contracts import Example, Options, Source, SourceFile, Task, TaskFormat, read_whole
from icltool.errors import ConfigError, DataError

SetName = Literal[
    "sst2",
    "rotten_tomatoes",
    "sst5",
    "financial_phrasebank",
    "trec",
    "agnews",
    "subjective",
    "tweet_eval_emotion",
    "tweet_eval_hate",
    "hate_speech_18",
]

_SENTIMENT = ("negative", "positive")


@dataclass(frozen=True)
class TextSet:
    """A set: the number of its rows, the words of its labels by number, what its prompt calls a text and a label, and how many
    rows its index set has."""

    rows: int
    words: tuple[str, ...]
    text: str
    label: str
    index: int = 4_096


SETS: Mapping[str, TextSet] = {
    "sst2": TextSet(67_349, _SENTIMENT, "sentence", "sentiment"),
    "rotten_tomatoes": TextSet(8_530, _SENTIMENT, "review", "sentiment"),
    "sst5": TextSet(8_544, ("poor", "bad", "neutral", "good", "great"), "sentence", "sentiment"),
    "financial_phrasebank": TextSet(2_264, ("negative", "neutral", "positive"), "sentence", "sentiment", 512),
    "trec": TextSet(5_952, ("short", "entity", "description", "person", "location", "number"), "question", "target"),
    "agnews": TextSet(127_600, ("world", "sports", "business", "science"), "news", "topic"),
    "subjective": TextSet(8_000, ("false", "true"), "review", "subjectiveness"),
    "tweet_eval_emotion": TextSet(5_052, ("anger", "joy", "positive", "sad"), "tweet", "emotion", 3_192),
    "tweet_eval_hate": TextSet(9_000, ("normal", "hate"), "tweet", "hate speech"),
    "hate_speech_18": TextSet(10_939, ("normal", "hate", "skip", "relation"), "tweet", "hate speech"),
}
#: Rows that the toolkit calibrates and tests with; those in between are its demonstrations.
_CALIBRATION, _TEST = 1_024, 512
#: The toolkit's generator: X <- (A X + C) mod M from the seed on.
_SEED, _A, _C, _M = 42, 1_664_525, 1_013_904_223, 2**32
_PACKAGE, _FOLDER = "StaICC", "cached_dataset"


class StaiccOptions(Options):
    """Which set."""

    set: SetName | None = Field(None, description="the set of texts, for example trec")


class StaiccReader(PublishedReader):
    """Reads `cached_dataset/{set}.dataset` of the installed package StaICC, which is not imported, or of the folder --root.

    The index set are the toolkit's demonstrations, the queries its test rows, and its calibration rows are our "development",
    drawn by the toolkit's own generator. An id is the row in the file. Texts that differ only in case, punctuation and spaces
    form a group. Prompts have the words of the set: "sentence: ... sentiment: ...". The toolkit asks each query twice, with
    other demonstrations: give two seeds. The prepared data set is called staicc-SET unless --name names it.
    """

    name = "staicc"
    tasks = ("classification",)
    options_model = StaiccOptions
    source = Source(
        "the Python package StaICC (`pip install StaICC==0.1.1`)",
        "Apache-2.0; the texts under the licences of their sets",
        tuple(
            SourceFile(f"{_FOLDER}/{name}.dataset", "", f"{counted(one.rows, 'text')}") for name, one in SETS.items()
        ),
    )
    title = "StaICC"
    noun = "text"

    def __init__(self, options: StaiccOptions) -> None:
        if options.set is None:
            raise ConfigError(
                "data set 'staicc' needs the name of a set", f"--option set=NAME: {', '.join(get_args(SetName))}"
            )
        self.set: str = options.set
        self.image_namespace = f"staicc-{options.set}"

    def named_after(self, root: Path | None) -> str:
        """See NamedAfterFiles: after the set."""
        return f"staicc-{self.set}"

    def definition(self, task: str) -> Task | None:
        """See DefinesTasks: the prompt has the words of the set."""
        one, usual = SETS[self.set], task_named(task)
        prompts = {
            **usual.prompts,
            "completion": TaskFormat(
                f"{one.text}: {{text}} {one.label}:", stop=(f"{one.text}:",), answer=" {label}", separator="\n"
            ),
            "chat": TaskFormat(f"{one.text}: {{text}} Answer with the {one.label} only."),
        }
        return usual.model_copy(update={"prompts": prompts, "image_prompts": {}})

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        path, one, hint = self._path(root), SETS[self.set], self._hint()
        rows = _rows(path, one.words, hint)
        sizes = {"development": _CALIBRATION, "train": one.index, "validation": _TEST}
        if len(rows) < sum(sizes.values()):
            raise DataError(
                f"{path} has {counted(len(rows), 'text')}, and its splits take {sum(sizes.values()):,}", hint
            )
        places = dict(zip(sizes, toolkit_split(len(rows), tuple(sizes.values())), strict=True))
        names = ("train", "validation", "development")
        drawn = [[_example(row, *rows[row], one.words) for row in places[name]] for name in names]
        splits = with_text_groups([[e for e in examples if e.text] for examples in drawn])
        for name, examples, all_examples in zip(names, splits, drawn, strict=True):
            empty = len(all_examples) - len(examples)
            remarks = (f"{path.name}: {counted(empty, 'empty text')} of {name} left out",) if empty else ()
            # the file has the rows of all splits
            yield Part(name, (path,), None, examples, len(rows), one.rows if name == "train" else None, remarks)

    def _hint(self) -> str:
        return self.source.hint(f"{_FOLDER}/{self.set}.dataset")

    def _path(self, root: Path | None) -> Path:
        """The file of the set. Raises DataError if there is none."""
        file = f"{self.set}.dataset"
        if root is None:
            package = importlib.util.find_spec(_PACKAGE)
            if package is None or not package.submodule_search_locations:
                raise DataError(f"data set staicc needs the package {_PACKAGE}, or --root", f"get {self.source.site}")
            root = Path(next(iter(package.submodule_search_locations)))
        start = root.expanduser().absolute()
        for base in (start, start / _FOLDER, start / _PACKAGE / _FOLDER):
            if (base / file).is_file():
                return base / file
        raise DataError(f"no StaICC in {start}: {file} is missing", self._hint())


def toolkit_split(count: int, sizes: Sequence[int]) -> list[list[int]]:
    """As many of `count` rows as each of the sizes says, one after another, drawn without replacement as the toolkit draws
    them: X <- (1664525 X + 1013904223) mod 2^32 from X = 42; the row taken is the floor(X / 2^32 x rows left)-th left."""
    left, state, parts = list(range(count)), _SEED, []
    for size in sizes:
        part = []
        for _ in range(size):
            state = (_A * state + _C) % _M
            part.append(left.pop(int(state / _M * len(left))))
        parts.append(part)
    return parts


class _PlainUnpickler(pickle.Unpickler):
    """Makes lists, tuples, texts and numbers; it refuses every class and function that a file names."""

    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is never loaded")


def _rows(path: Path, words: Sequence[str], hint: str) -> list[tuple[str, int]]:
    """(text, number of the label) of all rows. Raises DataError that names the row that is none."""
    try:
        content = _PlainUnpickler(io.BytesIO(read_whole(path))).load()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(
            f"{path} is not a pickled list of texts: {one_line(str(error)) or type(error).__name__}", hint
        ) from error
    if not isinstance(content, list):
        raise DataError(f"{path} is not a pickled list of texts: it is {content!r:.40}", hint)
    rows = []
    for place, row in enumerate(content):
        match row:
            case [[str(text)], int(label)] if type(label) is int and 0 <= label < len(words):
                rows.append((one_line(text), label))
            case _:
                raise DataError(
                    f"{path}: row {place} is not a text with a label from 0 to {len(words) - 1}: {row!r:.60}", hint
                )
    return rows


def _example(row: int, text: str, label: int, words: tuple[str, ...]) -> Example:
    return Example(row, "", row, text, words[label], (words[label],), choices=words)
