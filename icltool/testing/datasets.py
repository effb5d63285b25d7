"""The conformance suite of dataset readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from icltool.components.tasks import BUILT_IN, task_named
from icltool.contracts import (
    DatasetReader,
    Example,
    HasQueriesOnly,
    PreparedSplit,
    ReadReport,
    file_exists,
    image_file,
    open_file,
    open_image,
)
from icltool.errors import DataError
from icltool.testing.abilities import expect_reading_abilities
from icltool.testing.expectations import built, expect, expect_error
from icltool.testing.progress import QuietProgress

_TEXT_FIELDS = ("image", "text", "label", "question", "group", "question_type", "answer_type", "style", "rationale",
                "rule")  # fmt: skip


def check_dataset(
    reader: DatasetReader | Callable[[], DatasetReader], root: Path | None, task: str, workspace: Path
) -> None:
    """Checks a dataset reader, or a class or factory that makes one, against `icltool.DatasetReader`.

    `root` is a folder with the data set (None for a reader that makes its own files), `workspace` an empty folder.
    Checks `name` and `tasks`; that `check` writes nothing, returns a ReadReport and raises a DataError naming a folder that
    does not exist; that `read` gives "train" first ("validation", if it has queries only), then splits of other names, with the
    announced number of examples, unique ids, images that exist and open (in a folder, or in a zip archive: see
    `icltool.contracts.open_file`), and complete fields; that it reads the same twice, and writes only where it may (a lock file
    may be beside the folder of its own files). Raises AssertionError with a description of the fault.
    """
    one = built(reader, "read")
    expect(isinstance(one.name, str) and one.name, "`name` must be a non-empty string")
    expect(isinstance(one.tasks, tuple) and one.tasks, "`tasks` must be a tuple of the tasks served, the default first")
    expect(task in one.tasks, f"task {task!r} is not among the reader's tasks {one.tasks}")
    expect_reading_abilities(one)

    before = _listing(workspace), _listing(root)
    for verify in (False, True):
        report = one.check(root, task, verify)
        expect(isinstance(report, ReadReport), f"`check` must return a ReadReport, not {type(report).__name__}")
        for file in report.files:
            expect(Path(file).exists(), f"`check` reports {file}, which does not exist")
    expect((_listing(workspace), _listing(root)) == before, "`check` must write nothing")
    if root is not None:
        missing = workspace / "no-such-folder"
        error = expect_error(
            DataError, lambda: one.check(missing, task, False), "a folder that is not there is a DataError"
        )
        expect(missing.name in error.message, f"the DataError must name the folder {missing.name}: {error.message!r}")

    first = _read(one, root, task, workspace)
    expect(first == _read(built(reader, "read"), root, task, workspace), "reading twice gives different examples")
    allowed = workspace / "datasets" / one.name / "source"
    for path in _listing(workspace) - before[0]:
        lock = path.parent == allowed.parent and path.suffix == ".lock"
        inside = lock or allowed in path.parents or path == allowed or path in allowed.parents
        expect(inside, f"`read` wrote {path}; a reader's own files belong into {allowed}")
    expect(_listing(root) == before[1], "`read` must write nothing into the data set's folder")


def _read(reader: DatasetReader, root: Path | None, task: str, workspace: Path) -> dict[str, list[Example]]:
    first = "validation" if isinstance(reader, HasQueriesOnly) and reader.queries_only else "train"
    splits: dict[str, list[Example]] = {}
    for split in reader.read(root, task, workspace, QuietProgress()):
        expect(isinstance(split, PreparedSplit), f"`read` must yield PreparedSplit, not {type(split).__name__}")
        expect(splits or split.name == first, f"the first split must be {first!r}, not {split.name!r}")
        expect(split.name not in splits, f"split {split.name!r} comes twice")
        examples = list(split.examples)
        expect(
            len(examples) == split.count,
            f"split {split.name!r} announces {split.count} examples and has {len(examples)}",
        )
        expect(examples, f"split {split.name!r} is empty")
        for example in examples:
            _check_example(example, task)
        ids = {example.id for example in examples}
        expect(len(ids) == len(examples), f"split {split.name!r} repeats an example id")
        splits[split.name] = examples
    expect(first in splits, f"`read` yields no split {first!r}")
    return splits


def _check_example(example: Example, task: str) -> None:
    where = f"example {getattr(example, 'id', '?')}"
    expect(isinstance(example, Example), f"splits must yield Example, not {type(example).__name__}")
    for name, value in (("id", example.id), *(("image_id", one) for one in example.image_ids)):
        whole = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        expect(whole, f"{where}: `{name}` must be a whole number of 64 bits, not {value!r}")
    expect(len(example.image_ids) == max(1, len(example.images)), f"{where}: each image needs an image id")
    for name in _TEXT_FIELDS:
        expect(isinstance(getattr(example, name), str), f"{where}: `{name}` must be a string")
    alone = example.image and example.choices  # a query whose task is to name the class of an image has no text
    expect(example.text or alone, f"{where}: `text`, which retrieval by text compares, is empty")
    tuple_of_text = isinstance(example.references, tuple) and all(isinstance(r, str) for r in example.references)
    expect(tuple_of_text, f"{where}: `references` must be a tuple of strings")
    for field in task_named(task).fields if task in BUILT_IN else ():
        present = bool(getattr(example, field)) or (field == "text" and bool(alone))
        expect(present, f"{where}: the task {task!r} needs {field!r}")
    for image in example.images:
        _check_image(Path(image_file(image)), where)


def _check_image(path: Path, where: str) -> None:
    expect(path.is_absolute(), f"{where}: the image path {path} must be absolute")
    expect(file_exists(path), f"{where}: the image {path} does not exist")
    try:
        with open_file(path) as file, open_image(file) as image:
            image.load()
    except Exception as error:
        raise AssertionError(f"{where}: the image {path} does not open: {error}") from error


def _listing(folder: Path | None) -> frozenset[Path]:
    return frozenset() if folder is None or not folder.exists() else frozenset(folder.rglob("*"))
