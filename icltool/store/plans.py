"""Plans: which demonstrations each query gets, as a JSON file that can be read, written by hand, and replayed.

{"schema": "icltool.plan", "version": 1, "dataset": "coco2017", "task": "caption", "fingerprint": "…",
 "splits": {"demonstrations": "train", "queries": "validation"}, "order": "prompt order", "made": {…},
 "plan": {"QUERY ID": [demonstration ids in prompt order], …}}

Only `plan` is needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from icltool.contracts import read_whole
from icltool.contracts.evaluation import EvaluationProvenance
from icltool.contracts.json import Json
from icltool.errors import StoreError
from icltool.store.atomic import replace_file
from icltool.store.evaluations import SettingResult, predictions_file, read_predictions
from icltool.store.sequences import SequenceFile

SCHEMA = "icltool.plan"
VERSION = 1
#: The only order: the last demonstration stands next to the query.
ORDER = "prompt order"
SPLITS: Mapping[str, str] = {"demonstrations": "train", "queries": "validation"}

_AGAIN = "mend the file, or run `icltool export plan` again"
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Plan:
    """Demonstrations by query id, and where they come from.

    `icd_ids` maps a query's id to the ids of its demonstrations in prompt order; lengths may differ between queries.
    `dataset`, `task` and `fingerprint` identify the prepared data set, `splits` the splits of demonstrations and queries; all
    are None if the file does not name them. `made` records how the plan was created (method, shots, seed, options …).
    `digest` is a hash of the file's content, and `remarks` are notes for the user.
    """

    icd_ids: Mapping[int, tuple[int, ...]]
    dataset: str | None = None
    task: str | None = None
    fingerprint: str | None = None
    splits: Mapping[str, str] | None = None
    made: Mapping[str, object] = field(default_factory=dict)
    digest: str = ""
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many queries it has."""
        return len(self.icd_ids)

    @property
    def shots(self) -> int:
        """The length of the shortest list: the number of demonstrations that every query has."""
        return min((len(icds) for icds in self.icd_ids.values()), default=0)


def write_plan(path: Path, plan: Plan) -> None:
    """Writes a plan atomically, one query per line. `made` must be JSON values; None values are omitted.

    Raises StoreError when `path` cannot be written.
    """
    head = {
        "schema": SCHEMA,
        "version": VERSION,
        "dataset": plan.dataset,
        "task": plan.task,
        "fingerprint": plan.fingerprint,
        "splits": None if plan.splits is None else dict(plan.splits),
        "order": ORDER,
        "made": dict(plan.made),
    }
    known = {key: value for key, value in head.items() if value is not None}
    start = json.dumps(known, indent=2, ensure_ascii=False).removesuffix("\n}")
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f'{start},\n  "plan": {{')
        for position, (query, icds) in enumerate(plan.icd_ids.items()):
            stream.write(f'{"," if position else ""}\n    "{query}": {json.dumps(icds)}')
        stream.write("\n  }\n}\n")


def read_plan(path: Path) -> Plan:
    """The plan in a file. A file without schema or fingerprint, for example one written by hand, gets a note.

    Raises StoreError that names the file and the fault: it is missing or not valid JSON, has another schema, version or
    order, has no queries, repeats a query or a demonstration of a query, or has an id that is not a 64-bit integer.
    """
    path = Path(path)
    content, digest = _content(path)
    _check_head(path, content)
    dataset, task, fingerprint = (_text(path, content, key) for key in ("dataset", "task", "fingerprint"))
    provenance, splits = _made(path, content), _splits(path, content)
    icd_ids = _queries(path, content.get("plan"))
    remarks = [] if fingerprint else [_unchecked(path)]
    lengths = {len(icds) for icds in icd_ids.values()}
    if len(lengths) > 1:
        remarks.append(f"{path} has lists of {min(lengths)} to {max(lengths)} demonstrations; the shortest counts")
    return Plan(
        icd_ids,
        dataset=dataset,
        task=task,
        fingerprint=fingerprint or None,
        splits=splits,
        made=provenance,
        digest=digest,
        remarks=tuple(remarks),
    )


def plan_of_setting(folder: Path, setting: SettingResult, provenance: EvaluationProvenance) -> Plan:
    """The demonstrations of an evaluated setting, by query; `provenance` is that of the evaluation in `folder`.

    Raises StoreError when the setting's predictions are missing or damaged.
    """
    rows = read_predictions(predictions_file(folder, setting.method, setting.shots, setting.seed))
    origin = {
        "source": Path(folder).resolve().name,
        "method": setting.method,
        "shots": setting.shots,
        "seed": setting.seed,
        "options": setting.extra.get("options", {}),
    }
    return _plan({row["query_id"]: tuple(row["icd_ids"]) for row in rows}, provenance.get("configuration"), origin)


def plan_of_sequences(path: Path) -> Plan:
    """The best beam of each query of a sequences file; an unfinished file gets a note.

    Raises StoreError when the file is missing, cut, or something else.
    """
    file = SequenceFile.open(path)
    try:
        icd_ids = {r.query_id: tuple(r.icd_ids[0].tolist()) for r in file.results() if len(r.icd_ids)}
        remarks = () if file.complete else (f"{path} is unfinished: {len(file)} queries so far",)
        provenance = file.provenance
        origin = {
            "source": path.name,
            "method": "best generated sequence",
            "shots": file.shots,
            "seed": provenance.seed,
            "options": {},
        }
    finally:
        file.close()
    configuration = {**provenance.configuration, "dataset_fingerprint": provenance.dataset_fingerprint}
    queries = str(configuration.get("queries", SPLITS["demonstrations"]))
    return replace(_plan(icd_ids, configuration, origin), splits={**SPLITS, "queries": queries}, remarks=remarks)


def _plan(icd_ids: dict[int, tuple[int, ...]], configuration: object, origin: Mapping[str, object]) -> Plan:
    """A plan whose data set is that of an artefact's configuration."""
    options = dict(configuration) if isinstance(configuration, Mapping) else {}
    named = (options.get(key) for key in ("dataset", "task", "dataset_fingerprint"))
    dataset, task, fingerprint = (name if isinstance(name, str) and name else None for name in named)
    splits = {**SPLITS, "queries": str(options.get("queries", SPLITS["queries"]))}
    return Plan(icd_ids, dataset, task, fingerprint, splits, {**origin, "configuration": options})


def _unchecked(path: Path) -> str:
    return f"{path} has no data set fingerprint, so nothing tells whether its ids are those of this data set"


def _content(path: Path) -> tuple[dict[str, Json], str]:
    """(the JSON object in the file, a hash of its bytes)."""
    try:
        data = read_whole(path)
        content = json.loads(data, object_pairs_hook=_without_repetition)
    except FileNotFoundError as error:
        raise StoreError(f"plan {path} does not exist", "`icltool export plan` writes one") from error
    except OSError as error:
        raise StoreError(
            f"plan {path} cannot be read: {error.strerror or error}", "check the path and its permissions"
        ) from error
    except _RepeatedKeyError as error:
        raise StoreError(f"plan {path} has the key {error.args[0]!r} twice in one object", _AGAIN) from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise StoreError(f"plan {path} is not valid JSON: {error}", _AGAIN) from error
    if not isinstance(content, dict):
        raise StoreError(f"plan {path} must be a JSON object, got {type(content).__name__}", _AGAIN)
    return content, hashlib.blake2b(data, digest_size=8).hexdigest()


class _RepeatedKeyError(ValueError):
    """An object has a key twice; JSON readers would silently take the last."""


def _without_repetition(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(key)
            seen.add(key)
    return values


def _check_head(path: Path, content: Mapping[str, Json]) -> None:
    """StoreError if schema, version or order is present and not a plan's."""
    schema, version = content.get("schema", SCHEMA), content.get("version", VERSION)
    if schema != SCHEMA:
        raise StoreError(f"{path} has schema {schema!r}, a plan has {SCHEMA!r}", "give a plan file")
    if type(version) is not int or version != VERSION:
        raise StoreError(f"plan {path} has version {version!r}, this icltool reads {VERSION}", "update icltool")
    if content.get("order", ORDER) != ORDER:
        raise StoreError(
            f"plan {path} has the order {content['order']!r}, ids must be in {ORDER!r}",
            "write the demonstration next to the query last",
        )


def _text(path: Path, content: Mapping[str, Json], key: str) -> str | None:
    value = content.get(key)
    if not isinstance(value, str | None):
        raise StoreError(f"plan {path}: {key} must be a string, got {value!r}", _AGAIN)
    return value


def _made(path: Path, content: Mapping[str, Json]) -> dict[str, Json]:
    provenance = content.get("made")
    if not isinstance(provenance, dict | None):
        raise StoreError(f"plan {path}: made must be an object, got {provenance!r}", _AGAIN)
    return provenance or {}


def _splits(path: Path, content: Mapping[str, Json]) -> dict[str, str] | None:
    splits = content.get("splits")
    if splits is None:
        return None
    named = {key: name for key, name in splits.items() if isinstance(name, str)} if isinstance(splits, dict) else {}
    if named != splits or not named.keys() <= SPLITS.keys():
        raise StoreError(f"plan {path}: splits must name those of {' and '.join(SPLITS)}, not {splits!r}", _AGAIN)
    return {**SPLITS, **named}


def _queries(path: Path, entries: Json) -> dict[int, tuple[int, ...]]:
    """The checked ids."""
    if not isinstance(entries, dict) or not entries:
        raise StoreError(f'plan {path} lists no queries: "plan" must be {{"QUERY ID": [ICD ids], …}}', _AGAIN)
    queries: dict[int, tuple[int, ...]] = {}
    for key, icds in entries.items():
        if not _INTEGER.fullmatch(key) or int(key) not in _INT64:
            raise StoreError(f"plan {path}: query id {key!r} is not an integer", _AGAIN)
        if not isinstance(icds, list):
            raise StoreError(f"plan {path}: query {key} has {icds!r} instead of a list of demonstration ids", _AGAIN)
        ids: list[int] = []
        for icd in icds:
            if type(icd) is not int or icd not in _INT64:
                raise StoreError(f"plan {path}: query {key} lists {icd!r}, which is not an integer", _AGAIN)
            ids.append(icd)
        if len(set(ids)) < len(ids):
            repeated = next(icd for icd in ids if ids.count(icd) > 1)
            raise StoreError(f"plan {path}: query {key} lists example {repeated} twice", _AGAIN)
        queries[int(key)] = tuple(ids)
    return queries
