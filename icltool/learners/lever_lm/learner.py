"""The learner `lever-lm`: trains the selector on generated sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icltool.contracts import Progress, TrainingOutcome, TrainingSet
from icltool.errors import DataError
from icltool.learners.lever_lm import checkpoint as files
from icltool.learners.lever_lm.options import parse_options


class LeverLM:
    """Trains a Lever-LM selector. Options: see LeverLMOptions; ConfigError for a wrong one."""

    def __init__(self, **options: Any) -> None:
        self.options = parse_options(options)
        self.needs = self.options.reads.needs

    def identity(self) -> dict[str, Any]:
        """The resolved options, defaults included, JSON-ready."""
        return self.options.identity()

    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Writes last, min_vl, min_tl (.safetensors), config.json, history.json, README.md and logs/ into `folder`.

        Never opens an image. What an earlier training left in `folder` is removed first. Raises DataError or
        ConfigError for data or options that cannot be trained on, KeyboardInterrupt on Ctrl-C; finished validations
        keep their checkpoints then.
        """
        from lightning.pytorch.utilities import rank_zero_only

        from icltool.learners.lever_lm import rows
        from icltool.learners.lever_lm.building import build_model
        from icltool.learners.lever_lm.model import code_tensor, feature_tensors
        from icltool.learners.lever_lm.module import LeverLMModule
        from icltool.learners.lever_lm.networks import parameters_of
        from icltool.learners.lever_lm.training import fit, seeded

        options = self.options
        if not len(data.icd_rows):
            raise DataError("there are no sequences to train on", "run `icltool generate` first")
        table = feature_tensors(data.index, self.needs)
        dim = next(iter(table.values())).shape[1]
        vocabulary = rows.Vocabulary(len(data.index))
        train, validation = rows.training_and_validation(
            data, vocabulary, options.threshold, options.val_fraction, options.reverse_seq, seed
        )
        rows.check_length(train, options.n_positions)
        config = files.CheckpointConfig(
            options=options.identity(),
            examples=len(data.index),
            dim=dim,
            shots=data.icd_rows.shape[1],
            seed=seed,
            index_fingerprint=files.index_fingerprint(data.index.ids),
            provenance=dict(data.provenance),
        )
        with seeded(seed):
            model = build_model(len(data.index), dim, options)
            module = LeverLMModule(model, table, code_tensor(data.index), train, validation, seed)
            if getattr(rank_zero_only, "rank", 0) == 0:
                folder.mkdir(parents=True, exist_ok=True)
                files.remove_old(folder)
                files.write_config(folder, config)
            history = fit(module, folder, files.index_tensors(data.index, self.needs), progress)
        figures = {
            "rows given": len(data.scores),
            "rows trained on": len(train),
            "rows validated on": len(validation),
            "queries trained on": len(set(train.queries.tolist())),
            "queries validated on": len(set(validation.queries.tolist())),
        }
        if history:
            files.write_card(folder, config, parameters_of(module.model), history, figures)
        written = {name: folder / f"{name}.safetensors" for name in files.CHECKPOINTS}
        return TrainingOutcome({name: path for name, path in written.items() if path.is_file()}, history)
