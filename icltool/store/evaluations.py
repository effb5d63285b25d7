"""What an evaluation leaves: results.json, and one JSONL file of predictions per setting.

<folder>/results.json
<folder>/predictions/<method>-<shots>-shot-seed<seed>.jsonl
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from icltool.errors import StoreError
from icltool.store.atomic import read_json, replace_file, write_json

SCHEMA = "icltool-results"
VERSION = 1
RESULTS = "results.json"

_AGAIN = "run `icltool evaluate` again"
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
    extra: dict[str, Any] = field(default_factory=dict)


def write_results(folder: Path, results: Sequence[SettingResult], provenance: Mapping[str, Any]) -> Path:
    """Writes results.json atomically and returns its path. Raises StoreError when it cannot be written.

    A figure that is not a finite number is written as null.
    """
    path = Path(folder) / RESULTS
    settings = [_finite(asdict(result)) for result in results]
    write_json(path, {"schema": SCHEMA, "version": VERSION, "provenance": dict(provenance), "results": settings})
    return path


def read_results(folder: Path) -> tuple[list[SettingResult], dict[str, Any]]:
    """The settings and the provenance in `folder` (or in the results.json that is given).

    Raises StoreError when the file is missing, cut, malformed or of another schema.
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / RESULTS
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise StoreError(f"{path} holds no evaluation results", "give the folder of an evaluation")
    if content.get("version") != VERSION:
        raise StoreError(f"{path} has schema version {content.get('version')!r}, this icltool reads {VERSION}", _AGAIN)
    try:
        return [_setting(entry) for entry in content["results"]], dict(content["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is malformed: {type(error).__name__} {error}", _AGAIN) from error


def predictions_file(folder: Path, method: str, shots: int, seed: int) -> Path:
    """Where the predictions of a setting lie. ValueError for a method name that is no file name."""
    if not method or method.startswith(".") or any(sign in method for sign in "/\\\0"):
        raise ValueError(f"method name {method!r} cannot be part of a file name")
    return Path(folder) / "predictions" / f"{method}-{shots}-shot-seed{seed}.jsonl"


def write_predictions(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes one JSON object per line, atomically, and returns how many. Rows are taken one by one, so any number fits.

    A row has query_id, group, icd_ids (prompt order), prompt, images, raw, answer, references, scores ({metric:
    float, unscaled}); more keys are kept. Raises ValueError for a row that lacks one, StoreError when `path` cannot be
    written.
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


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The rows of a predictions file. StoreError that names file and line when it is missing, cut or malformed."""
    path = Path(path)
    rows: list[dict[str, Any]] = []
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                row = json.loads(line) if line.endswith(b"\n") else None
                if not isinstance(row, dict) or any(name not in row for name in _COLUMNS):
                    raise StoreError(f"{path}, line {number}, is cut or no prediction row", _AGAIN)
                rows.append(row)
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", "run `icltool evaluate` for this setting") from error
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}, line {len(rows) + 1}, is malformed: {error}", _AGAIN) from error
    return rows


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
        extra=dict(entry["extra"]),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _finite(value: Any) -> Any:
    """The same value with null for numbers that JSON has not (NaN, infinities)."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
