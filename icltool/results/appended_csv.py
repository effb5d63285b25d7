"""A CSV file that grows by the rows of every evaluation: one table of all results with the hyper-parameters behind them.

The file is read, joined with the new rows and replaced whole under a lock, so that it is never half written and several
processes may append at once. Cells that are there are kept as they are, whoever wrote
them, but for line ends.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icltool.contracts import read_whole
from icltool.errors import StoreError
from icltool.results.delimited import csv_text
from icltool.store.atomic import check_writable, remove_leftovers, write_error, write_text, writing
from icltool.store.evaluations import SettingResult
from icltool.store.locking import LockHeldError, held, lock_file
from icltool.store.provenance import moment, releases

#: What tells rows apart: the evaluation folder stands for model, data and metrics, `setting` for the demonstrations or weights.
KEY = ("evaluation", "method", "shots", "seed", "setting")
#: Options of an evaluation that decide the answers, by the column's prefix; a column each where one was given.
_GENERATION = (
    "max_new_tokens",
    "num_beams",
    "length_penalty",
    "min_new_tokens",
    "repetition_penalty",
    "no_repeat_ngram",
    "temperature",
    "top_p",
    "sampling_seed",
)
_MODEL = ("quantization", "prompt_style", "prompt_template")
#: Seconds that another process is waited for: it needs the file for milliseconds.
WAIT = 60.0
#: Spreadsheets take a cell that begins with one of these for a formula (OWASP, "CSV Injection"; the last four are the wide
#: forms), and an apostrophe before it for "this is text".
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_TEXT = "'"
#: A cell holds at most so many characters when it is read; csv's own limit is 2**17.
_LONGEST = 1 << 24


@dataclass(frozen=True)
class Appended:
    """How many rows were added, how many were there already, and columns that the file had not had."""

    added: int
    known: int
    new_columns: tuple[str, ...] = ()


def append_results(
    file: Path,
    evaluation: str,
    configuration: Mapping[str, object],
    results: Sequence[SettingResult],
    training: Mapping[str, object],
) -> str:
    """Appends the settings that the table has not yet; a line that says how many. Figures are in the scale of printed ones.

    `configuration` is that of the evaluation, whose folder is called `evaluation`; `training` are the options of the training
    that made its model's weights. Raises what `append_rows` raises.
    """
    done = append_rows(file, [_row(evaluation, configuration, result, training) for result in results], KEY)
    parts = [f"{done.added} rows added"] if done.added else []
    parts += [f"{done.known} there already"] if done.known else []
    parts += [f"new columns: {', '.join(done.new_columns)}"] if done.new_columns else []
    return f"{file}: {', '.join(parts) or 'nothing to add'}"


def _row(
    evaluation: str, configuration: Mapping[str, object], result: SettingResult, training: Mapping[str, object]
) -> dict[str, object]:
    weights = next((result.extra[kind] for kind in ("finetuned", "intervention") if kind in result.extra), None)
    values = {name: value for name, value in configuration.items() if value is not None}
    options = training if weights is None else weights.get("about", {}).get("options")
    return {
        "evaluation": evaluation,
        "date": moment(),
        **releases(),
        **{name: values.get(name) for name in ("dataset", "task", "model", "model_path")},
        "method": result.method,
        "shots": result.shots,
        "seed": result.seed,
        "setting": result.extra.get("digest", ""),
        "weights": None if weights is None else weights.get("file"),
        "queries": result.queries,
        **({"split": values["queries"]} if "queries" in values else {}),
        **{name: figure.mean for name, figure in result.metrics.items()},
        **{f"{name} {end}": getattr(figure, end) for name, figure in result.metrics.items() for end in ("low", "high")},
        "seconds": result.seconds,
        **{f"generation.{name}": values[name] for name in _GENERATION if name in values},
        **{f"model.{name}": values[name] for name in _MODEL if name in values},
        **flattened(values.get("adapter_options"), "model."),
        "dtype": values.get("dtype"),
        **flattened(options, "training."),
    }


def append_rows(file: Path, rows: Sequence[Mapping[str, object]], key: Sequence[str]) -> Appended:
    """Appends rows to `file`, which is made where there is none, with one header line.

    The columns are the file's, then those that only the new rows have; a cell without a value is empty. A row whose `key`
    columns are those of a row in the file, or of an earlier one of `rows`, is left out. Texts that a spreadsheet would take
    for a formula get an apostrophe; numbers are written in full precision, None and figures that are no number as nothing,
    lists and mappings as JSON.

    Raises StoreError where the file is no such table (`key` is not among its columns) or cannot be read or written, or
    another process does not let go of it. ValueError for a row without one of the `key` columns.
    """
    for row in rows:
        if missing := [name for name in key if name not in row]:
            raise ValueError(f"a row lacks {', '.join(missing)}")
    with _alone(file):
        header, before = _read(file)
        names = list(dict.fromkeys(_cell(name) for row in rows for name in row))
        keys = [_cell(name) for name in key]
        if header and (lacking := [name for name in keys if name not in header]):
            raise StoreError(
                f"{file} is a different table: it lacks column {', '.join(lacking)}, but {_column_names(header)}",
                "give another file",
            )
        new_columns = [name for name in names if name not in header]
        columns = [*header, *new_columns]
        there = {tuple(row.get(name, "") for name in keys) for row in before}
        added: list[dict[str, str]] = []
        for row in rows:
            cells = {_cell(name): _cell(value) for name, value in row.items()}
            identity = tuple(cells[name] for name in keys)
            if identity not in there:
                there.add(identity)
                added.append(cells)
        if added:
            write_text(file, csv_text(columns, [*before, *added]))
    return Appended(len(added), len(rows) - len(added), tuple(new_columns) if added and header else ())


def check_appendable(file: Path) -> None:
    """Raises StoreError where `append_rows` would: `file` is no CSV, or its folder cannot be written."""
    _read(file)
    check_writable(file)


def flattened(values: object, prefix: str = "") -> dict[str, object]:
    """Nested mappings as columns: {"a": {"b": 1}} becomes {"a.b": 1}; {} for anything else."""
    flat: dict[str, object] = {}
    for name, value in values.items() if isinstance(values, Mapping) else ():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _cell(value: object) -> str:
    """A value as it stands in the file."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        listed = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        value = json.dumps(listed, ensure_ascii=False, sort_keys=True, default=str)
    text = str(value).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    # a lone surrogate fits into no file, and blanks before a sign are stripped by some spreadsheets
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _TEXT + text if text.lstrip().startswith(_FORMULA) or text[:1] == "\t" else text


def _read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(columns, rows by column); nothing for a file that is missing or empty. Cells beyond the header are a fault."""
    try:
        text = read_whole(file).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        return [], []
    except IsADirectoryError:
        raise StoreError(f"{file} is a folder", "give a file") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise StoreError(
            f"{file} is not UTF-8 text (byte {error.start})", "save it as CSV in UTF-8, or give another file"
        ) from error
    limit = csv.field_size_limit(_LONGEST)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise StoreError(
            f"{file}, line {reader.line_num}, is not valid CSV: {error}", "correct it, or give another file"
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not lines:
        return [], []
    header = lines[0]
    if repeated := {name for name, count in Counter(header).items() if count > 1}:
        raise StoreError(f"{file} has two columns {sorted(repeated)[0]!r}", "rename one, or give another file")
    for number, line in enumerate(lines[1:], 1):
        if len(line) > len(header):
            raise StoreError(
                f"{file}: row {number} has {len(line)} cells for {len(header)} columns",
                "correct it, or give another file",
            )
    return header, [dict(zip(header, line, strict=False)) for line in lines[1:]]


def _column_names(header: Sequence[str]) -> str:
    """The first columns, and the likely reason where there is one alone."""
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        return f"one alone, {header[0][:40]!r}: are its cells separated by other signs than commas?"
    return ", ".join(header[:6]) + (" …" if len(header) > 6 else "")


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Holds the file's lock (`.NAME.lock` beside it, which stays); waits for another process."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(lock_file(file), WAIT))
        except LockHeldError as error:
            by = error.holder or "another process"
            gone = f"; where it is gone, remove {error.file}" if error.file is not None else ""
            raise StoreError(
                f"{file} has been locked by {by} for {WAIT:.0f} s", f"stop it, or give another file{gone}"
            ) from error
        except OSError as error:
            raise write_error(file, error) from error
        remove_leftovers(file)
        yield
