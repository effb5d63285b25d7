"""The trained selector: loading, and decoding of demonstration sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icltool.components.learners.lever_lm import checkpoint as files
from icltool.components.learners.lever_lm.building import build_model
from icltool.components.learners.lever_lm.clip import values_of
from icltool.components.learners.lever_lm.decoding import beam, closed_rows, greedy, next_row
from icltool.components.learners.lever_lm.features import BuildEncoder, TrainedClip, load_clip
from icltool.components.learners.lever_lm.model import SelectorModel, feature_tensors
from icltool.components.learners.lever_lm.options import SOURCES
from icltool.contracts import FloatArray, IndexSet, IntArray, QuerySet
from icltool.errors import ConfigError, DataError, StoreError

#: Embeddings of a probe row may differ by this share of their norm because of hardware; another encoder differs more.
PROBE_TOLERANCE = 0.02
#: Scores (float64) in a batch of beam search, at most, and rows whose keys are computed at once.
BEAM_CELLS, TARGET_ROWS = 16_000_000, 16_384


class LeverLMSelector:
    """Chooses demonstrations for queries. Build it with `load`.

    Decoding runs in float64, so that choices do not depend on the batch size; the model is small enough for it.
    """

    def __init__(
        self,
        model: SelectorModel,
        config: files.CheckpointConfig,
        index: dict[str, Tensor],
        path: Path,
        device: str,
        clip: TrainedClip | None = None,
    ) -> None:
        self.config, self.options, self.path = config, model.options, path
        self.needs = model.options.decoding_needs
        self._device, self._clip = torch.device(device), clip
        self._model = model.to(self._device, torch.float64).eval().requires_grad_(False)
        self._index = index

    @classmethod
    def load(
        cls,
        folder: Path | str,
        checkpoint: str = "min_vl",
        device: str | None = None,
        build_encoder: BuildEncoder | None = None,
    ) -> LeverLMSelector:
        """The selector in a checkpoint folder; `checkpoint` is last, min_vl or min_tl.

        `device` is a torch device; None takes CUDA if available. `build_encoder` builds an encoder from its name and options,
        for a checkpoint with trained towers. Raises StoreError if files are missing, truncated or do not match, ConfigError
        if an encoder is needed and cannot be built.
        """
        folder = Path(folder)
        config, options = files.read_config(folder)
        tensors = files.read_weights(folder, checkpoint)
        path = folder / f"{checkpoint}.safetensors"
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        towers = {
            name.removeprefix(files.CLIP): tensors.pop(name) for name in list(tensors) if name.startswith(files.CLIP)
        }
        index = {name.removeprefix("index."): tensors.pop(name) for name in list(tensors) if name.startswith("index.")}
        try:
            model = build_model(config.examples, config.dim, options)
            model.load_state_dict(tensors, strict=True)
            whole = files.index_fingerprint(index["ids"].numpy()) == config.index_fingerprint
            missing = {"probes", *options.reads.needs} - set(index)
        except (RuntimeError, KeyError, ConfigError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"{path} does not fit {files.CONFIG_FILE} beside it: {reason}", "train again") from error
        if not whole or missing:
            raise StoreError(f"{path} does not fit {files.CONFIG_FILE} beside it: another index set", "train again")
        clip = load_clip(path, config, options, towers, device, build_encoder) if options.trained or towers else None
        return cls(model, config, index, path, device, clip)

    @property
    def max_shots(self) -> int | None:
        """The most demonstrations that positions allow; None for no limit."""
        return self._model.max_shots

    def decode(self, index: IndexSet, queries: QuerySet, shots: int, batch_size: int = 256, beams: int = 1) -> IntArray:
        """Sequences of exactly `shots` demonstrations: rows of `index` int64 [Q, shots], in prompt order.

        Greedy with one beam, else the best sequence of a beam search with this many `beams`. A pointer takes any index set;
        for the other networks `index` is the index set of training or part of it, in any order. A query's leaking rows and
        earlier choices are excluded, as are special tokens. Raises DataError for an index set with examples or embeddings
        other than those of training, or if fewer than `shots` rows are left for a query; ConfigError for more shots than
        positions.
        """
        tokens = self._tokens_of(index)
        if self.max_shots is not None and shots > self.max_shots:
            raise ConfigError(
                f"{self.path} supports at most {self.max_shots} shots, got {shots}",
                f"train with --option n_positions={shots + 1}",
            )
        answer = np.empty((len(queries), shots), dtype=np.int64)
        if not shots or not len(queries):
            return answer
        if self._clip is not None:
            reads = self.options.reads
            index, queries = self._clip.filled_index(index, reads.icd), self._clip.filled_queries(queries, reads.query)
        table = feature_tensors(index, frozenset(self.options.reads.icd))
        query_features = feature_tensors(queries, frozenset(self.options.reads.query))
        targets = self._targets(tokens, table)
        search = next_row(self._model, targets)
        if beams > 1:  # every hypothesis needs a row of scores
            batch_size = max(1, min(batch_size, BEAM_CELLS // (beams * len(index))))
        for start in range(0, len(queries), batch_size):
            stop = min(start + batch_size, len(queries))
            closed = self._closed(index, queries, range(start, stop), shots)
            query = {m: values[start:stop].to(self._device, torch.float64) for m, values in query_features.items()}
            with torch.inference_mode():
                if beams > 1:
                    rows = beam(self._model, query, table, tokens, targets, closed, shots, beams)
                else:
                    rows = greedy(self._model, query, table, tokens, search, closed, shots)
            answer[start:stop] = rows.cpu().numpy()
        return answer[:, ::-1].copy() if self.options.reverse_seq else answer

    @torch.inference_mode()
    def _targets(self, tokens: Tensor, table: dict[str, Tensor]) -> Tensor:
        """The model's targets, computed in chunks of rows."""
        parts = []
        for start in range(0, len(tokens), TARGET_ROWS):
            part = slice(start, start + TARGET_ROWS)
            features = {m: values[part].to(self._device, torch.float64) for m, values in table.items()}
            parts.append(self._model.targets(tokens[part], features))
        return torch.cat(parts)

    def _closed(self, index: IndexSet, queries: QuerySet, positions: range, shots: int) -> Tensor:
        """bool [B, n]: the leaking rows of each of these queries."""
        leaking = [index.leaking_rows(queries, position) for position in positions]
        for position, rows in zip(positions, leaking, strict=True):
            if len(index) - len(rows) < shots:
                raise DataError(
                    f"query {queries.ids[position]} has only {len(index) - len(rows)} examples to choose {shots} shots "
                    "from",
                    "use fewer shots, or a larger index set",
                )
        return closed_rows(leaking, len(index)).to(self._device)

    def _tokens_of(self, index: IndexSet) -> Tensor:
        """The token of each row of `index` int64 [n]. Raises DataError if it is not (part of) the index set of training.

        A pointer reads no tokens and accepts any index set of the right width.
        """
        self._check_modalities(index)
        if not self._model.bound_to_index:
            self._check_width(index)
            return torch.arange(len(index), device=self._device)
        trained = self._index["ids"].numpy()
        order = np.argsort(trained, kind="stable")
        positions = np.searchsorted(trained[order], index.ids).clip(max=len(trained) - 1)
        tokens = order[positions]
        strange = int((trained[tokens] != index.ids).sum())
        other = "use the data set it was trained on, or train again"
        if strange:
            raise DataError(
                f"{self.path} was trained on another index set ({len(trained)} examples): "
                f"{strange} of these {len(index)} are not in it",
                other,
            )
        self._check_embeddings(index, tokens)
        return torch.from_numpy(tokens).to(self._device)

    def _check_modalities(self, index: IndexSet) -> None:
        available = {name for name in ("image", "text") if getattr(index, name) is not None}
        if self.needs & {"image", "text"} - available:
            modalities = " and ".join(sorted(self.needs & {"image", "text"}))
            raise ValueError(f"the index set must have {modalities} embeddings")

    def _check_width(self, index: IndexSet) -> None:
        for modality in sorted(self.needs & {"image", "text"}):
            width = getattr(index, modality).shape[1]
            if width != self.config.dim:
                raise DataError(
                    f"{self.path} reads {modality} embeddings of width {self.config.dim} (of {self.config.encoder}), "
                    f"but these have {width}",
                    "embed with the encoder of training (--encoder), or train again",
                )

    def _check_embeddings(self, index: IndexSet, tokens: IntArray) -> None:
        """Raises DataError if the embeddings of the probe rows are not those of training."""
        rows, places = np.isin(tokens, self._index["probes"].numpy()).nonzero()[0], self._index["probes"].numpy()
        order = np.searchsorted(places, tokens[rows])
        for modality in sorted(self.options.reads.needs):
            trained_on = self._index[modality].numpy()
            features = self._features_of(index, modality, rows)
            fits = features.shape[1] == trained_on.shape[1]
            if fits and len(rows):
                gap = np.linalg.norm(features - trained_on[order], axis=1)
                fits = bool((gap <= PROBE_TOLERANCE * np.linalg.norm(trained_on[order], axis=1)).mean() > 0.9)
            if not fits and modality in self.options.trained:
                raise DataError(
                    f"{self.path}: the features of its {modality} tower differ from those in training",
                    f"check that the {SOURCES[modality]} and the release of the encoder's library are those of training",
                )
            if not fits:
                raise DataError(
                    f"{self.path} was trained on other {modality} embeddings: those of {self.config.encoder}, "
                    f"width {trained_on.shape[1]}",
                    "embed with the encoder of training (--encoder), or train again",
                )

    def _features_of(self, index: IndexSet, modality: str, rows: IntArray) -> FloatArray:
        """float32 [n, D] for some rows, encoded if the modality's tower was trained."""
        if self._clip is None or modality not in self.options.trained:
            stored: FloatArray = getattr(index, modality)[rows]
            return stored
        values = values_of(index, modality)
        return self._clip.encode(modality, [values[row] for row in rows.tolist()])
