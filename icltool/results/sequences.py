"""Generated sequences as files for other programs: JSON in the published form, CSV, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from icltool.contracts.json import Json
from icltool.contracts.records import QueryResult
from icltool.results.intervals import finite
from icltool.store.atomic import replace_file

#: Queries that are in memory together.
_BLOCK = 512


def write_json(results: Iterable[QueryResult], path: Path) -> int:
    """{query id: {"id_list": [[ICD ids in prompt order, query id], ...], "score_list": [...]}}, best beam first.

    Returns how many queries it wrote. Raises StoreError when `path` cannot be written.
    """
    count = 0
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("{")
        for count, result in enumerate(results, 1):
            ids = [[*(int(icd) for icd in beam), result.query_id] for beam in result.icd_ids]
            entry = {"id_list": ids, "score_list": [finite(score) for score in result.scores]}
            stream.write(f"{',' if count > 1 else ''}\n{json.dumps(str(result.query_id))}: {json.dumps(entry)}")
        stream.write("\n}\n")
    return count


def write_csv(results: Iterable[QueryResult], path: Path, shots: int) -> int:
    """One line per query and beam (`columns`); missing numbers are empty, the candidates one field separated by spaces.

    Returns how many lines it wrote. Raises StoreError when `path` cannot be written.
    """
    count = 0
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns(shots), lineterminator="\n")
        writer.writeheader()
        for row in _rows(results):
            cells = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
            writer.writerow(cells)
            count += 1
    return count


def write_parquet(results: Iterable[QueryResult], path: Path, shots: int, provenance: Mapping[str, Json]) -> int:
    """One row per query and beam (`columns`): ids int64, numbers float64 with nulls where missing, candidates a list of
    int64; `provenance` as JSON in the schema's metadata under "icltool". Returns how many rows it wrote.

    Raises StoreError when `path` cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    whole = {"query_id", "beam", *(f"icd_{k}" for k in range(1, shots + 1))}
    types = {name: pa.int64() if name in whole else pa.float64() for name in columns(shots)}
    types["candidates"] = pa.list_(pa.int64())
    schema = pa.schema(list(types.items()), metadata={"icltool": json.dumps(dict(provenance))})
    count = 0
    queries = iter(results)
    with replace_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while block := list(islice(queries, _BLOCK)):
            rows = list(_rows(block))
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def columns(shots: int) -> list[str]:
    """The columns of CSV and Parquet, for K shots: `icd_1` to `icd_K` in prompt order; `gain_1` to `gain_K` in the
    order in which the search added them; `beam` 0 is the best; log-probabilities are sums in nats."""
    icds = [f"icd_{k}" for k in range(1, shots + 1)]
    gains = [f"gain_{k}" for k in range(1, shots + 1)]
    return [
        "query_id",
        "beam",
        *icds,
        "score",
        *gains,
        "value",
        "base_value",
        "log_prob",
        "base_log_prob",
        "candidates",
    ]


def _rows(results: Iterable[QueryResult]) -> Iterator[dict[str, Json]]:
    for result in results:
        candidates = [int(c) for c in result.candidates]
        for beam in range(len(result.scores)):
            yield {
                "query_id": result.query_id,
                "beam": beam,
                **{f"icd_{k}": int(icd) for k, icd in enumerate(result.icd_ids[beam], 1)},
                "score": finite(result.scores[beam]),
                **{f"gain_{k}": finite(gain) for k, gain in enumerate(result.step_scores[beam], 1)},
                "value": finite(result.values[beam]),
                "base_value": finite(result.base_value),
                "log_prob": finite(result.log_probs[beam]),
                "base_log_prob": finite(result.base_log_prob),
                "candidates": candidates,
            }
