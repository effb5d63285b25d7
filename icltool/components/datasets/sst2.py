"""SST-2 (GLUE): phrases of film reviews, negative or positive. Text only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from icltool.components.datasets.hub_splits import open_splits
from icltool.components.datasets.labelled_rows import with_text_groups
from icltool.components.datasets.official import few, one_line
from icltool.components.datasets.places import chosen_root, first_holding
from icltool.components.datasets.reader import unofficial
from icltool.contracts import Example, Options, PreparedSplit, Progress, ReadReport, read_whole
from icltool.errors import ConfigError, DataError

#: Our split name -> (GLUE's file, sentences in the official split).
SPLITS = {"train": ("train.tsv", 67_349), "validation": ("dev.tsv", 872)}
LABELS = ("negative", "positive")
_GET = "get SST-2.zip of GLUE from gluebenchmark.com/tasks and unpack it there"


@dataclass(frozen=True)
class _Source:
    """One split: the file (or data set) it comes from, as named in messages, and (place, sentence, label) of its rows."""

    name: str
    row_word: str
    files: tuple[Path, ...]
    rows: Iterable[tuple[int, str, str]]


class Sst2Options(Options):
    """The hub's copy, where the files of GLUE are not on this machine."""

    path: str | None = Field(None, description="data set on the hub (stanfordnlp/sst2), or a folder of parquet files")
    revision: str | None = Field(None, description="revision of the data set on the hub: a branch, tag or commit")


class Sst2Reader:
    """Reads GLUE's `SST-2/{train,dev}.tsv` (sentence, label), or a copy with the columns idx, sentence and label.

    --root is the folder that holds `SST-2`, that folder itself, or a folder of parquet files; `path=stanfordnlp/sst2`
    takes the hub's copy, at `revision`. Each sentence is an example without an image, its own image id; ids run
    through train, then validation. Sentences that differ only in case, punctuation and spaces form one group across
    both splits. (Train's phrases that are parts of other phrases are not near-duplicates in this sense.)
    """

    name = "sst2"
    tasks = ("classification",)

    options_model = Sst2Options

    def __init__(self, options: Sst2Options) -> None:
        self.path, self.revision = options.path, options.revision

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        sources = self._sources(root)
        splits = _examples(sources)
        remarks = [
            remark
            for name, examples in splits.items()
            for remark in unofficial(sources[name].name, len(examples), "sentence", SPLITS[name][1])
        ]
        return ReadReport(tuple(file for source in sources.values() for file in source.files), tuple(remarks))

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""
        with progress.task("reading SST-2", 1, "data sets") as ticker:
            splits = _examples(self._sources(root))
            ticker.advance()
        for name, examples in splits.items():
            yield PreparedSplit(name, len(examples), iter(examples))

    def _sources(self, root: Path | None) -> dict[str, _Source]:
        if root is not None and self.path is not None:
            raise ConfigError(
                f"data set 'sst2': --root and path={self.path} exclude each other", "leave one of them out"
            )
        if root is None and self.path is None:
            raise DataError(
                "data set 'sst2' needs a folder",
                "name the folder that holds SST-2 with --root, or read it from the hub: --option path=stanfordnlp/sst2",
            )
        source = str(root if root is not None else self.path)
        start = chosen_root(root, (), self.name) if root is not None else Path(source).expanduser().absolute()
        files = [file for file, _ in SPLITS.values()]
        folder = first_holding([start / "SST-2", start], files)
        if folder is not None:
            missing = [file for file in files if not (folder / file).is_file()]
            if missing:
                raise DataError(f"{folder} lacks {', '.join(missing)}", _GET)
            return {
                name: _Source(str(folder / file), "line", (folder / file,), _lines(folder / file))
                for name, (file, _) in SPLITS.items()
            }
        if not start.is_dir():
            return self._copy(source)
        try:
            return self._copy(str(start))
        except DataError as error:
            names = " and ".join(files)
            raise DataError(
                f"no SST-2 in {start}: it holds neither {names} nor a copy: {error.message}", _GET
            ) from error

    def _copy(self, path: str) -> dict[str, _Source]:
        splits = open_splits(path, None, self.revision, list(SPLITS))
        for split_name in SPLITS:
            missing = {"sentence", "label"} - set(splits[split_name].columns if split_name in splits else ())
            if missing:
                what = f"column {few(sorted(missing))}" if split_name in splits else "split"
                raise DataError(f"data set {path} is not a copy of SST-2: {split_name!r} has no {what}", _GET)
        return {
            name: _Source(
                split.title,
                "row",
                split.files,
                (
                    (place, str(row["sentence"] or ""), str(row["label"]))
                    for place, row in enumerate(split.rows(["sentence", "label"]))
                ),
            )
            for name, split in splits.items()
        }


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, sentence, label) of each line. The files quote nothing: a quotation mark is a part of the sentence."""
    try:
        lines = read_whole(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}", _GET) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    if lines[0].rstrip("\r").split("\t") != ["sentence", "label"]:
        raise DataError(f"{path} line 1 does not name the columns sentence and label", _GET)
    for line, line_text in enumerate(lines[1:], start=2):
        fields = line_text.rstrip("\r").split("\t")
        if fields == [""]:
            continue
        if len(fields) != 2:
            raise DataError(f"{path} line {line}: {len(fields)} fields, not sentence and label", _GET)
        yield line, fields[0], fields[1].strip()


def _examples(sources: dict[str, _Source]) -> dict[str, list[Example]]:
    splits: list[list[Example]] = []
    for source in sources.values():
        before = sum(map(len, splits))
        examples: list[Example] = []
        for place, sentence, label in source.rows:
            text = one_line(sentence)
            if label not in ("0", "1") or not text:
                what = f"label {label!r} is neither 0 nor 1" if text else "the sentence is empty"
                raise DataError(f"{source.name} {source.row_word} {place}: {what}", _GET)
            identifier, name = before + len(examples), LABELS[int(label)]
            examples.append(Example(identifier, "", identifier, text, name, (name,), choices=LABELS))
        if not examples:
            raise DataError(f"{source.name} has no sentences", _GET)
        splits.append(examples)
    return dict(zip(sources, with_text_groups(splits), strict=True))
