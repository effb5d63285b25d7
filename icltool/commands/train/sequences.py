"""Training of selectors: on generated sequences and the embeddings of the index set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from icltool.commands.train.job import common_identity
from icltool.commands.train.options import TrainConfig
from icltool.config.encoder import ChosenEncoder, chosen_encoder
from icltool.config.identity import makers
from icltool.contracts import IntArray, Learner, Progress, TrainableEncoder, TrainingOutcome, TrainingSet
from icltool.contracts.learner import HasVariant, SequenceFigures
from icltool.errors import ConfigError, StoreError
from icltool.store.arrays import embedded_by, index_set, open_embeddings, rows_of
from icltool.store.provenance import learned
from icltool.store.sequences import SequenceFile

if TYPE_CHECKING:
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.records import PreparedDataset
    from icltool.store.workspace import Workspace


#: Columns of a sequences file by name.
Arrays: TypeAlias = Mapping[str, NDArray[Any]]
#: The columns that every learner reads, and those for learners that need "figures".
_READ = ("query_id", "beam_count", "icd_ids", "scores", "candidates")
_FIGURES = ("values", "log_probs", "base_value", "base_log_prob")
_AGAIN = "run `icltool generate` again"


class SequenceJob:
    """A selector's training; see Job. Raises StoreError if sequences or embeddings are missing, unfinished or do not
    belong together."""

    usage = ""

    def __init__(
        self,
        config: TrainConfig,
        workspace: Workspace,
        dataset: PreparedDataset,
        learner: Learner,
        options: Mapping[str, object],
    ) -> None:
        self.learner, self.dataset = learner, dataset
        self.variant = learner.variant if isinstance(learner, HasVariant) else ""
        path = config.sequences or workspace.newest_sequences(dataset.name, dataset.task)
        self.sequences = _open_sequences(path, dataset)
        self.arrays = self.sequences.arrays()
        self.embeddings: EmbeddingFile | None = None
        if learner.needs & {"image", "text", "encoder"}:
            sampled_with = self.sequences.provenance.configuration.get("encoder")
            named = config.encoder or (str(sampled_with) if sampled_with else None)
            encoder = embedded_by(workspace, dataset, named, learner.needs)
            self.embeddings = open_embeddings(workspace, dataset, "train", encoder)
        embeddings = self.embeddings
        self.identity: dict[str, object] = {
            **common_identity(config, learner, options, dataset),
            "sequences_fingerprint": _content_hash(
                self.arrays, (*_READ, *(_FIGURES if "figures" in learner.needs else ()))
            ),
            "encoder": None if embeddings is None else embeddings.encoder,
            "encoder_fingerprint": None if embeddings is None else embeddings.encoder_fingerprint,
            "embeddings_fingerprint": None if embeddings is None else embeddings.fingerprint,
        }

    def provenance(self) -> dict[str, object]:
        """See Job."""
        return learned(
            self.identity,
            makers([("learners", str(self.identity["learner"]))], {}),
            sequences=self.sequences.path.name,
            sequences_configuration=self.sequences.provenance.configuration,
            **self._built_as(),
        )

    def _built_as(self) -> dict[str, object]:
        """How an encoder under a name of the user's own is built, if it is trained."""
        if self.embeddings is None or "encoder" not in self.learner.needs:
            return {}
        encoder = _encoder_of(self.embeddings)
        if encoder.component == encoder.name:
            return {}
        options = {key: value for key, value in encoder.options.items() if key not in ("path", "download")}
        return {"encoder_component": encoder.component, "encoder_options": options}

    def train(self, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See Job."""
        data = self._training_set()
        progress.detail(f"{len(data.scores)} sequences of {len(np.unique(data.query_rows))} queries -> {folder}")
        return self.learner.train(data, folder, seed, progress)

    def _training_set(self) -> TrainingSet:
        """One row per query and beam, in the order of query ids and ranks."""
        arrays, path = self.arrays, self.sequences.path
        index = index_set(self.dataset.split("train"), self.learner.needs, self.embeddings)
        beams = arrays["scores"].shape[1]
        present = np.arange(beams) < arrays["beam_count"][:, None]
        queries = np.repeat(arrays["query_id"][:, None], beams, axis=1)[present]
        return TrainingSet(
            index=index,
            query_rows=rows_of(queries, index.ids, path, _AGAIN),
            icd_rows=rows_of(arrays["icd_ids"][present], index.ids, path, _AGAIN),
            scores=arrays["scores"][present],
            provenance=self.provenance(),
            candidate_rows=_pools(arrays, present, index.ids, path),
            encoder=self._encoder() if "encoder" in self.learner.needs else None,
            figures=_figures(arrays, present) if "figures" in self.learner.needs else None,
        )

    def _encoder(self) -> TrainableEncoder:
        """The encoder that made the embeddings, to be trained.

        Raises ConfigError if it cannot be trained or its weights are missing, StoreError if its weights have changed.
        """
        embeddings = self.embeddings
        assert embeddings is not None
        if embeddings.provenance.configuration.get("text_field") is not None:
            raise ConfigError(
                f"{embeddings.path} has the embeddings of a further text, on which no encoder is trained",
                "embed without --text-field, or use --option freeze=image,text",
            )
        encoder = _encoder_of(embeddings).build(device="cpu")
        if not isinstance(encoder, TrainableEncoder):
            raise ConfigError(
                f"encoder {embeddings.encoder!r} cannot be trained",
                "use another encoder, or --option freeze=image,text",
            )
        if encoder.fingerprint() != embeddings.encoder_fingerprint:
            raise StoreError(
                f"{embeddings.path} was made by another version of encoder {embeddings.encoder}",
                "embed again: `icltool embed --overwrite`",
            )
        return encoder


def _encoder_of(embeddings: EmbeddingFile) -> ChosenEncoder:
    """The encoder that made these embeddings."""
    made_with = embeddings.provenance.configuration
    path, options = made_with.get("encoder_path"), made_with.get("encoder_options")
    return chosen_encoder(
        str(made_with.get("encoder", embeddings.encoder)),
        None if path is None else str(path),
        options if isinstance(options, dict) else {},
    )


def _open_sequences(path: Path, dataset: PreparedDataset) -> SequenceFile:
    """The sequences; they must be finished, and of this data set."""
    file = SequenceFile.open(path)
    if file.provenance.dataset_fingerprint != dataset.fingerprint:
        raise StoreError(
            f"{path} was generated from another data set, or another version, than {dataset.name} ({dataset.task})",
            f"give --sequences of this data set, or run `icltool generate --dataset {dataset.name} --task {dataset.task}`",
        )
    if file.provenance.configuration.get("queries", "train") != "train":
        raise StoreError(
            f"{path} has sequences for queries of the validation split, which must not be trained on",
            "give sequences that `icltool generate` made without --queries validation",
        )
    if not file.complete:
        raise StoreError(
            f"{path} is unfinished: {len(file):,} of {file.total:,} queries",
            "rerun the same `icltool generate` to resume",
        )
    return file


def _content_hash(arrays: Arrays, names: Iterable[str]) -> str:
    """32 hex characters: a hash of the columns that training reads."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in names:
        hasher.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return hasher.hexdigest()


def _figures(arrays: Arrays, present: NDArray[np.bool_]) -> SequenceFigures:
    """The scores of each sequence, and of its anchor without demonstrations."""
    base = [np.repeat(arrays[name], present.sum(axis=1)) for name in ("base_value", "base_log_prob")]
    return SequenceFigures(arrays["values"][present], arrays["log_probs"][present], *base)


def _pools(arrays: Arrays, present: NDArray[np.bool_], ids: IntArray, path: Path) -> IntArray:
    """Rows of each sequence's candidate pool, int64 [R, C], -1 where a pool is smaller than the largest."""
    pools, counts = arrays["candidates"], arrays["candidate_count"]
    held = np.arange(pools.shape[1]) < counts[:, None]
    rows = np.full(pools.shape, -1, dtype=np.int64)
    rows[held] = rows_of(pools[held], ids, path, _AGAIN)
    return np.repeat(rows, present.sum(axis=1), axis=0)
