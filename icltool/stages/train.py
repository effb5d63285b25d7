"""Trains a learner (the Lever-LM selector) on generated sequences.

Reads: datasets/<name>/<task>/, sequences/*.h5, embeddings/<name>-<task>-train-<encoder>.h5; with an encoder that is
    trained along, the images as well
Writes: checkpoints/<learner>-<name>-<task>-<digest>/
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.config.train import TrainConfig
from icltool.contracts import IntArray, Learner, Progress, StageReport, TrainableEncoder, TrainingSet
from icltool.errors import ConfigError, StoreError
from icltool.plugin.manager import component, load_registry

if TYPE_CHECKING:
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.records import PreparedDataset
    from icltool.store.sequences import SequenceFile
    from icltool.store.workspace import Workspace

#: Written last, so that a folder with it holds a finished training.
RECORD_FILE = "training.json"
_SCHEMA = {"schema": "icltool.training", "schema_version": 1}


@dataclass(frozen=True)
class _Parts:
    """What one run works with. `arrays` are the sequences' arrays; `identity` is all that decides the result."""

    learner: Learner
    dataset: PreparedDataset
    sequences: SequenceFile
    arrays: Mapping[str, Any]
    embeddings: EmbeddingFile | None
    identity: dict[str, Any]


def run(config: TrainConfig, progress: Progress) -> StageReport:
    """Trains, or finds the same training finished before.

    Raises StoreError where data set, sequences or embeddings are missing, unfinished or do not belong together or the
    folder cannot be written, ConfigError and PluginError for wrong options, DataError for sequences that cannot be
    learned from, KeyboardInterrupt on Ctrl-C: the checkpoints of finished validations are then in the folder.
    """
    from icltool.store.artefact import digest
    from icltool.store.atomic import write_json, writing
    from icltool.store.workspace import Workspace

    workspace = Workspace(config.workspace)
    parts = _open_parts(config, workspace)
    name, task = parts.dataset.name, parts.dataset.task
    folder = workspace.checkpoint_folder(config.learner, name, task, digest(parts.identity))
    title = f"{config.learner} for {name} ({task})"
    with _lock(folder):
        record = None if config.overwrite else _finished(folder, parts.identity)
        if record is not None:
            return _report(title, folder, record, ["up to date: trained before on the same sequences, same options"])
        data = _training_set(parts)
        progress.detail(f"{len(data.scores)} sequences of {len(np.unique(data.query_rows))} queries -> {folder}")
        with writing(folder):
            (folder / RECORD_FILE).unlink(missing_ok=True)
            try:
                outcome = parts.learner.train(data, folder, config.seed, progress)
            except KeyboardInterrupt:
                if any(folder.glob("*.safetensors")):
                    progress.say(f"interrupted; the checkpoints of finished validations are in {folder}")
                raise
        record = {
            **_SCHEMA,
            "identity": parts.identity,
            "provenance": dict(data.provenance),
            "checkpoints": {key: path.name for key, path in outcome.checkpoints.items()},
            "history": [dict(entry) for entry in outcome.history],
        }
        if _is_leader():
            write_json(folder / RECORD_FILE, record)
    return _report(title, folder, record, [])


def _open_parts(config: TrainConfig, workspace: Workspace) -> _Parts:
    from icltool.store.arrays import embedded_by, open_embeddings
    from icltool.store.records import open_dataset

    options = dict(config.options)
    if config.trainer:
        options["trainer"] = {**options.get("trainer", {}), **config.trainer}
    learner: Learner = component("learners", config.learner, **options)
    dataset = open_dataset(workspace.dataset_folder(*workspace.choose_dataset(config.dataset, config.task)))
    path = config.sequences or workspace.newest_sequences(dataset.name, dataset.task)
    sequences = _open_sequences(path, dataset)
    arrays = sequences.arrays()
    embeddings: EmbeddingFile | None = None
    if learner.needs & {"image", "text", "encoder"}:
        sampled_with = sequences.provenance.configuration.get("encoder")
        encoder = embedded_by(workspace, dataset, config.encoder or sampled_with)
        embeddings = open_embeddings(workspace, dataset, "train", encoder)
    identity = {
        "learner": config.learner,
        "options": learner.identity() if hasattr(learner, "identity") else options,
        "seed": config.seed,
        "dataset": dataset.name,
        "task": dataset.task,
        "dataset_fingerprint": dataset.fingerprint,
        "sequences_fingerprint": _content_hash(arrays),
        "encoder": None if embeddings is None else embeddings.encoder,
        "encoder_fingerprint": None if embeddings is None else embeddings.encoder_fingerprint,
        "embeddings_fingerprint": None if embeddings is None else embeddings.fingerprint,
    }
    return _Parts(learner, dataset, sequences, arrays, embeddings, identity)


def _open_sequences(path: Path, dataset: PreparedDataset) -> SequenceFile:
    """The sequences, checked: finished, and of this very data set."""
    from icltool.store.sequences import SequenceFile

    file = SequenceFile.open(path)
    if file.provenance.dataset_fingerprint != dataset.fingerprint:
        raise StoreError(
            f"{path} was generated from another version of {dataset.name} ({dataset.task}), or from another data set",
            f"give other --sequences, or run `icltool generate --dataset {dataset.name} --task {dataset.task}`",
        )
    if file.provenance.configuration.get("queries", "train") != "train":
        raise StoreError(
            f"{path} was searched for queries of the validation split, which nothing may be trained on",
            "give sequences of `icltool generate` without --queries validation",
        )
    if not file.complete:
        raise StoreError(
            f"{path} is unfinished: {len(file)} of {file.total} queries", "run the same `icltool generate` again"
        )
    return file


def _content_hash(arrays: Mapping[str, Any]) -> str:
    """32 hex characters of what training reads of the sequences."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in ("query_id", "beam_count", "icd_ids", "scores", "candidates"):
        hasher.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return hasher.hexdigest()


def _training_set(parts: _Parts) -> TrainingSet:
    """One row per query and beam, in the order of query ids and ranks."""
    from icltool import __version__
    from icltool.store.arrays import index_set

    records, arrays = parts.dataset.split("train"), parts.arrays
    index = index_set(records, parts.learner.needs, parts.embeddings)
    beams = arrays["scores"].shape[1]
    present = np.arange(beams) < arrays["beam_count"][:, None]
    queries = np.repeat(arrays["query_id"][:, None], beams, axis=1)[present]
    found = load_registry().get("learners", str(parts.identity["learner"]))
    provenance = {key: value for key, value in parts.identity.items() if key not in ("options", "seed")}
    provenance |= {
        "sequences": parts.sequences.path.name,
        "sequences_configuration": parts.sequences.provenance.configuration,
        "icltool": __version__,
        "plugin": f"{found.distribution} {found.version}",
    }
    return TrainingSet(
        index=index,
        query_rows=_rows_of(queries, index.ids, parts.sequences.path),
        icd_rows=_rows_of(arrays["icd_ids"][present], index.ids, parts.sequences.path),
        scores=arrays["scores"][present],
        provenance=provenance,
        candidate_rows=_pools(arrays, present, index.ids, parts.sequences.path),
        encoder=_encoder(parts) if "encoder" in parts.learner.needs else None,
    )


def _encoder(parts: _Parts) -> TrainableEncoder:
    """The encoder that made the embeddings, to be trained.

    Raises ConfigError when it cannot be trained or its weights are missing, StoreError when it is another than it was.
    """
    embeddings = parts.embeddings
    assert embeddings is not None
    options: dict[str, Any] = {"device": "cpu"}
    path = embeddings.provenance.configuration.get("encoder_path")
    if path is not None:
        options["path"] = str(path)
    encoder = component("encoders", embeddings.encoder, **options)
    if not isinstance(encoder, TrainableEncoder):
        raise ConfigError(
            f"encoder {embeddings.encoder!r} cannot be trained", "use another, or --option freeze=image,text"
        )
    if encoder.fingerprint() != embeddings.encoder_fingerprint:
        raise StoreError(
            f"{embeddings.path} was made by another version of encoder {embeddings.encoder}",
            "embed again: `icltool embed --overwrite`",
        )
    return encoder


def _pools(arrays: Mapping[str, Any], present: Any, ids: IntArray, path: Path) -> IntArray:
    """Rows of each sequence's candidate pool, int64 [R, C], -1 where a pool is smaller than the largest."""
    pools, counts = arrays["candidates"], arrays["candidate_count"]
    held = np.arange(pools.shape[1]) < counts[:, None]
    rows = np.full(pools.shape, -1, dtype=np.int64)
    rows[held] = _rows_of(pools[held], ids, path)
    return np.repeat(rows, present.sum(axis=1), axis=0)


def _rows_of(wanted: IntArray, ids: IntArray, path: Path) -> IntArray:
    """The rows of these ids. StoreError when one is no example of the index set."""
    order = np.argsort(ids, kind="stable")
    places = np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)
    rows: IntArray = order[places].astype(np.int64)
    strange = wanted[ids[rows] != wanted]
    if len(strange):
        raise StoreError(
            f"{path} names example {strange[0]}, which the index set does not have", "run `icltool generate` again"
        )
    return rows


def _finished(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the same training when it is finished and its checkpoints are there, else None."""
    from icltool.store.artefact import canonical_json
    from icltool.store.atomic import read_json

    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except StoreError:  # cut: train again
        return None
    same = isinstance(record, dict) and canonical_json(record.get("identity")) == canonical_json(dict(identity))
    if not same or not all((folder / name).is_file() for name in record.get("checkpoints", {}).values()):
        return None
    return dict(record)


def _report(title: str, folder: Path, record: Mapping[str, Any], remarks: Sequence[str]) -> StageReport:
    """A table row per checkpoint."""
    history: list[dict[str, float]] = record["history"]
    rows = []
    for name in record["checkpoints"]:
        figure = {"min_vl": "val_loss", "min_tl": "train_loss"}.get(name)
        entry: dict[str, float] = {}
        if history:  # empty in the other processes of a distributed training
            entry = min(history, key=itemgetter(figure)) if figure else history[-1]
        rows.append({"checkpoint": name, **{key: round(value, 6) for key, value in entry.items()}})
    source = record.get("provenance", {}).get("sequences")
    return StageReport(title, tuple(rows), folder, (*remarks, *([f"sequences: {source}"] if source else [])))


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keeps a second run from training into the same folder; the other processes of a distributed training pass."""
    from icltool.store.atomic import writing
    from icltool.store.locking import locked

    if not _is_leader():
        yield
        return
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        yield


def _is_leader() -> bool:
    """Whether this is process 0 of a distributed training, or the only one; launchers say so by these variables."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        value = os.environ.get(name)
        if value is not None:
            if not value.isdigit():
                raise ConfigError(f"environment variable {name} is {value!r}, not a number", f"unset {name}")
            return int(value) == 0
    return True
