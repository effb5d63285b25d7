"""The learner `lever-lm`: trains the selector on generated sequences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.components.learners.lever_lm import checkpoint as files
from icltool.components.learners.lever_lm.options import LeverLMOptions, PointerOptions
from icltool.components.learners.options import OptionsLearner
from icltool.contracts import Progress, TrainableEncoder, TrainingOutcome, TrainingSet
from icltool.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor


class LeverLM(OptionsLearner):
    """Trains a Lever-LM selector."""

    name = "lever-lm"
    options_model = LeverLMOptions
    options: LeverLMOptions

    def __init__(self, options: LeverLMOptions) -> None:
        super().__init__(options)
        self.needs = self.options.training_needs
        self.variant = f"{self.options.variant}-{self.options.network}"

    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Writes last, min_vl, min_tl (.safetensors), config.json, history.json, README.md and logs/ into `folder`.

        Opens images only if a tower of CLIP runs in every step (options `freeze`, `from_images`); training then changes the
        weights of `data.encoder`. The files of an earlier training in `folder` are removed first. Raises DataError or
        ConfigError for unsuitable data or options, KeyboardInterrupt on Ctrl-C, which keeps the checkpoints of finished
        validations.
        """
        from icltool.components.learners.fitting.runner import fit
        from icltool.components.learners.fitting.trainer import seeded
        from icltool.components.learners.lever_lm import rows
        from icltool.components.learners.lever_lm.building import build_model
        from icltool.components.learners.lever_lm.clip import BatchOpener, ClipSnapshot, build_clip
        from icltool.components.learners.lever_lm.model import code_tensor, feature_tensors
        from icltool.components.learners.lever_lm.module import LeverLMModule
        from icltool.components.learners.lever_lm.training import LeverLMTraining

        options = self.options
        if not len(data.icd_rows):
            raise DataError("there are no sequences to train on", "run `icltool generate` first")
        table = feature_tensors(data.index, options.reads.needs - options.encoded)
        encoder, dim = self._encoder_and_dim(data, table)
        vocabulary = rows.Vocabulary(len(data.index))
        train, validation = rows.training_and_validation(
            data, vocabulary, options.threshold, options.val_fraction, options.reverse_seq, seed
        )
        rows.check_length(train, options.n_positions)
        config = self._config(data, dim, seed)
        with seeded(seed):
            model = build_model(len(data.index), dim, options)
            online = None if encoder is None else build_clip(encoder, options)
            opener = None if encoder is None else BatchOpener(data.index, encoder, options)
            module = LeverLMModule(model, table, code_tensor(data.index), train, validation, seed, online, opener)
            index_tensors = files.index_tensors(data.index, options.reads.needs - options.trained)
            snapshot = None if encoder is None or online is None else ClipSnapshot(online, data.index, encoder)
            figures = {
                "rows given": len(data.scores),
                "rows trained on": len(train),
                "rows validated on": len(validation),
                "queries trained on": len(set(train.queries.tolist())),
                "queries validated on": len(set(validation.queries.tolist())),
            }

            def beside_weights() -> Mapping[str, Tensor]:
                return {**index_tensors, **(snapshot.tensors() if snapshot else {})}

            return fit(LeverLMTraining(module, folder, beside_weights, config, figures, progress))

    def _encoder_and_dim(self, data: TrainingSet, table: Mapping[str, Tensor]) -> tuple[TrainableEncoder | None, int]:
        """(the encoder whose towers run, or None; D). Raises ConfigError if the encoder does not fit the embeddings."""
        widths = {values.shape[1] for values in table.values()}
        if not self.options.encoded:
            return None, widths.pop()
        if data.encoder is None:
            raise ValueError("these options need data.encoder, which is None")
        if widths - {data.encoder.dim}:
            raise ConfigError(
                f"encoder {data.encoder.name!r} has features of width {data.encoder.dim}, the embeddings have {widths.pop()}",
                "train with the encoder that made the embeddings",
            )
        return data.encoder, data.encoder.dim

    def _config(self, data: TrainingSet, dim: int, seed: int) -> files.CheckpointConfig:
        """The content of config.json."""
        clip: dict[str, object] = {}
        if self.options.trained and data.encoder is not None:
            name = data.provenance.get("encoder_component") or data.provenance.get("encoder", data.encoder.name)
            own = data.provenance.get("encoder_options")
            clip = {
                "encoder": str(name),
                "options": {**(own if isinstance(own, dict) else {}), **data.encoder.build_options()},
                "architecture": data.encoder.architecture(),
            }
        return files.CheckpointConfig(
            options=self.options.identity(),
            examples=len(data.index),
            dim=dim,
            shots=data.icd_rows.shape[1],
            seed=seed,
            index_fingerprint=files.index_fingerprint(data.index.ids),
            provenance=dict(data.provenance),
            clip=clip,
        )


class Pointer(LeverLM):
    """LeverLM with the pointer network, under a name of its own."""

    options_model = PointerOptions
