"""The files of an evaluation: results.json, and one JSONL file of predictions per setting.

<folder>/results.json
<folder>/predictions/<method>-<shots>-shot-seed<seed>.jsonl, and …-order<j>.jsonl for the demonstrations in another order
<folder>/predictions/.<name>.part: answers of a setting that is not finished

results.json holds {"schema", "version", "provenance", "results": [one entry per setting], "analysis": {…}}. The analysis is
of the settings of the last call (another call of the same settings makes it again without answering); older files have
none.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from icltool.contracts.evaluation import (
    Analysis,
    EvaluationProvenance,
    Prediction,
    RunFacts,
    SettingFacts,
    SettingKey,
)
from icltool.errors import OtherVersionError, StoreError
from icltool.store.atomic import read_json, replace_file, write_error, write_json, writing
from icltool.store.makers import Makers

SCHEMA = "icltool-results"
VERSION = 1
RESULTS = "results.json"

_AGAIN = "run `icltool evaluate` again"
_CHUNK_END = "chunk"
_PARTIAL, _PARTIAL_VERSION = "icltool-answers", 2
#: The key of the facts about a chunk, by the version of the file. A file is continued in the version that it began with.
_FACTS = {1: "told", _PARTIAL_VERSION: "facts"}
_COLUMNS = ("query_id", "group", "icd_ids", "prompt", "images", "raw", "answer", "references", "scores")


@dataclass(frozen=True, slots=True)
class MetricResult:
    """A metric over all queries, already multiplied by the metric's scale: mean and the bounds of its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SettingResult:
    """One evaluated setting: a method with a number of shots and a seed. `seconds` is the wall time it took."""

    method: str
    shots: int
    seed: int
    queries: int
    metrics: dict[str, MetricResult]
    seconds: float = 0.0
    extra: SettingFacts = field(default_factory=SettingFacts)

    @property
    def key(self) -> SettingKey:
        """Its key."""
        return SettingKey(self.method, self.shots, self.seed)


@dataclass(frozen=True)
class Evaluation:
    """The content of an evaluation folder: its settings, their provenance, and the analysis that compares them."""

    folder: Path
    results: list[SettingResult]
    provenance: EvaluationProvenance
    analysis: Analysis

    def predictions(self, key: SettingKey) -> list[Prediction]:
        """The answers of a setting. ValueError for a method that is not a file name, StoreError as `read_predictions`."""
        return read_predictions(predictions_file(self.folder, *key))


def write_results(
    folder: Path,
    results: Sequence[SettingResult],
    provenance: EvaluationProvenance,
    analysis: Analysis | None = None,
) -> Path:
    """Writes results.json atomically and returns its path. Raises StoreError when it cannot be written.

    `analysis` is the comparison of the settings, JSON values. A figure that is not finite is written as null.
    """
    path = Path(folder) / RESULTS
    settings = [_finite(asdict(result)) for result in results]
    content = {"schema": SCHEMA, "version": VERSION, "provenance": dict(provenance), "results": settings}
    write_json(path, content if analysis is None else {**content, "analysis": _finite(dict(analysis))})
    return path


def read_evaluation(place: Path) -> Evaluation:
    """The evaluation in a folder, or of a results.json. Older ones have an empty analysis.

    Raises StoreError when the file is missing, cut, malformed or of another schema.
    """
    path = Path(place)
    path = path if path.suffix == ".json" else path / RESULTS
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise StoreError(f"{path} holds no evaluation results", "give the folder of an evaluation")
    if content.get("version") != VERSION:
        raise OtherVersionError(
            f"{path} has schema version {content.get('version')!r}, this icltool reads {VERSION}", _AGAIN
        )
    try:
        results = [_setting(entry) for entry in content["results"]]
        provenance = cast(EvaluationProvenance, dict(content["provenance"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is malformed: {type(error).__name__} {error}", _AGAIN) from error
    analysis = content.get("analysis", {})
    if not isinstance(analysis, dict):
        raise StoreError(f"{path} is malformed: analysis is not an object", _AGAIN)
    return Evaluation(path.parent, results, provenance, cast(Analysis, analysis))


def predictions_file(folder: Path, method: str, shots: int, seed: int, order: int = 0) -> Path:
    """The predictions file of a setting; `order` counts the other orders of its demonstrations, from 1. ValueError for a
    method name that is not a file name."""
    if not method or method.startswith(".") or any(sign in method for sign in "/\\\0"):
        raise ValueError(f"method name {method!r} cannot be part of a file name")
    ending = f"-order{order}" if order else ""
    return Path(folder) / "predictions" / f"{method}-{shots}-shot-seed{seed}{ending}.jsonl"


def write_predictions(path: Path, rows: Iterable[Prediction]) -> int:
    """Writes one JSON object per line, atomically, and returns their number. Rows are streamed, so there may be any number.
    Keys that a Prediction does not have are kept. Raises ValueError for a row that lacks one, StoreError if `path` cannot
    be written.
    """
    count = 0
    with replace_file(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            missing = [name for name in _COLUMNS if name not in row]
            if missing:
                raise ValueError(f"prediction row lacks {', '.join(missing)}")
            stream.write(json.dumps(_finite(dict(row)), ensure_ascii=False))
            stream.write("\n")
            count += 1
    return count


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of a predictions file. StoreError that names file and line when it is missing, cut or malformed."""
    path = Path(path)
    rows: list[Prediction] = []
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                row = json.loads(line) if line.endswith(b"\n") else None
                if not isinstance(row, dict) or any(name not in row for name in _COLUMNS):
                    raise StoreError(f"{path}, line {number}, is truncated or not a prediction", _AGAIN)
                rows.append(cast(Prediction, row))
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", "run `icltool evaluate` for this setting") from error
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror or error}", "check the path and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}, line {len(rows) + 1}, is malformed: {error}", _AGAIN) from error
    return rows


class ChunkFacts(TypedDict, total=False):
    """How a chunk was answered: seconds, run facts and a remark; `choosing` is the number of prompts for choosing
    demonstrations."""

    seconds: float
    remark: str
    run: RunFacts
    choosing: int


class PartialAnswers:
    """The answers of an unfinished setting, beside its predictions file: finished chunks survive a kill.

    The file begins with a line that holds the setting's digest; if another setting of the same name was interrupted, its
    answers stay, and this setting's file has its digest in its name. Every chunk ends with a marker line, and a chunk
    without one does not count, so that the next run answers the same batches as an uninterrupted run. Chunks may be added
    in any order; `out_of_order` are those after a gap, by the position of their first row. `facts` holds the facts about
    each chunk.
    """

    def __init__(self, predictions: Path, digest: str, makers: Makers | None = None) -> None:
        """`makers` give the answers. Answers begun by different makers are refused when read."""
        self._makers = makers or Makers()
        self._fresh = False  # whether the file begins with the next chunk
        self.out_of_order: dict[int, list[Prediction]] = {}
        self.facts: list[ChunkFacts] = []
        self._version = _PARTIAL_VERSION  # of the file that is continued
        self._digest = digest
        self.path = predictions.with_name(f".{predictions.name}.part")
        further = predictions.with_name(f".{predictions.stem}@{digest[:6]}{predictions.suffix}.part")
        if further.exists() or self._is_anothers():
            self.path = further

    def resume(self, expected: Sequence[tuple[int, Sequence[int] | None]]) -> list[Prediction]:
        """The rows of complete stored chunks up to the first gap; see `out_of_order` for the others. The file is truncated
        after the last complete chunk. `expected` holds each row's query id and demonstration ids (None: any); chunks count
        up to the first that differs. Raises StoreError if other weights or another version of a plugin gave the answers, or
        the file cannot be read or written.
        """
        chunks, end = self._stored(expected)
        self._fresh = not chunks
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if chunks:
                os.truncate(self.path, end)
        rows: list[Prediction] = []
        while len(rows) in chunks:
            rows += chunks.pop(len(rows))
        self.out_of_order = {start: chunk for start, chunk in chunks.items() if start > len(rows)}
        return rows

    def append(self, rows: Sequence[Prediction], start: int | None = None, facts: ChunkFacts | None = None) -> None:
        """Adds a chunk, whose first row is number `start` (None: the next), and the `facts` about it. Once it returns, the
        chunk is never lost. Raises StoreError if it cannot be written."""
        lines = [json.dumps(_finite(dict(row)), ensure_ascii=False) for row in rows]
        last = {
            _CHUNK_END: "end",
            **({} if start is None else {"start": start}),
            **({_FACTS[self._version]: dict(facts)} if facts else {}),
        }
        head = [json.dumps(self._head())] if self._fresh else []
        with writing(self.path), self.path.open("wb" if self._fresh else "ab") as stream:
            stream.write("\n".join([*head, *lines, json.dumps(last), ""]).encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        self._fresh = False

    def remove(self) -> None:
        """Removes the file; call it once the predictions are written."""
        self.path.unlink(missing_ok=True)

    def remove_own(self) -> None:
        """Removes what a killed run left of this setting, after its predictions were written."""
        if self._is_own():
            self.remove()

    def _is_own(self) -> bool:
        return (head := self._head_there()) is not None and self._continues(head)

    def _is_anothers(self) -> bool:
        """Whether the file holds another setting's answers. A file whose first line was cut by a kill belongs to no
        setting."""
        return self._head_there() is not None and not self._is_own()

    def _head(self) -> dict[str, object]:
        return {"schema": _PARTIAL, "version": self._version, "digest": self._digest, **self._makers.record()}

    def _continues(self, head: Mapping[str, object]) -> bool:
        """Whether a file that begins with `head` has answers of this setting, in a version that can be read."""
        known = head.get("schema") == _PARTIAL and head.get("version") in tuple(_FACTS)
        return known and head.get("digest") == self._digest

    def _head_there(self) -> dict[str, object] | None:
        try:
            with self.path.open("rb") as stream:
                return _parsed(stream.readline())
        except OSError:
            return None

    def _stored(self, expected: Sequence[tuple[int, Sequence[int] | None]]) -> tuple[dict[int, list[Prediction]], int]:
        """(complete matching chunks by their first row, the byte at which they end)."""
        chunks: dict[int, list[Prediction]] = {}
        rows: list[Prediction] = []
        end = following = 0
        self.facts, self._version = [], _PARTIAL_VERSION
        try:
            with self.path.open("rb") as stream:
                head = _parsed(stream.readline()) or {}
                if not self._continues(head):
                    return {}, 0
                Makers.of(head).check(self.path, self._makers)
                facts_key = _FACTS[head["version"]]
                position = stream.tell()
                for line in stream:
                    position += len(line)
                    row = _parsed(line)
                    if row is None:
                        break
                    if _CHUNK_END not in row:
                        rows.append(cast(Prediction, row))
                        continue
                    start = row.get("start", following)
                    chunk_ids = expected[start : start + len(rows)]
                    if len(chunk_ids) < len(rows) or not all(
                        _fits(r, *a) for r, a in zip(rows, chunk_ids, strict=True)
                    ):
                        break
                    chunks[start], rows = rows, []
                    self.facts += [row[facts_key]] if facts_key in row else []
                    end, following = position, start + len(chunk_ids)
        except FileNotFoundError:
            return {}, 0
        except OSError as error:
            raise write_error(self.path, error) from error
        self._version = head["version"] if chunks else _PARTIAL_VERSION
        return chunks, end


def _fits(row: Prediction, query_id: int, icd_ids: Sequence[int] | None) -> bool:
    return row.get("query_id") == query_id and (icd_ids is None or row.get("icd_ids") == list(icd_ids))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object on a complete line; None for anything else."""
    try:
        value: object = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _setting(entry: Mapping[str, Any]) -> SettingResult:
    metrics = {
        str(name): MetricResult(*(_number(m[k]) for k in ("mean", "low", "high")))
        for name, m in entry["metrics"].items()
    }
    return SettingResult(
        method=str(entry["method"]),
        shots=int(entry["shots"]),
        seed=int(entry["seed"]),
        queries=int(entry["queries"]),
        metrics=metrics,
        seconds=_number(entry["seconds"]),
        extra=cast(SettingFacts, dict(entry["extra"])),
    )


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _finite(value: object) -> object:
    """The same value with null for numbers that JSON lacks (NaN, infinities)."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
