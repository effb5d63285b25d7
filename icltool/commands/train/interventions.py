"""Training of interventions: on examples of the index set, with the LVLM."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.commands.train.job import common_identity, from_model
from icltool.commands.train.options import TrainConfig
from icltool.config.tasks import task_of
from icltool.contracts import Features, InterventionLearner, InterventionSet, Progress, TrainingOutcome
from icltool.engine.image_cache import open_image_cache
from icltool.errors import ConfigError
from icltool.plugin.manager import load_registry
from icltool.store.arrays import guard_kinds, index_set

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset

#: The options of a model that decide its answers.
OF_MODEL = (
    "model",
    "model_path",
    "dtype",
    "quantization",
    "prompt_style",
    "prompt_template",
    "prompt",
    "adapter_options",
    "template_options",
)
#: The variables in which launchers of distributed trainings give the number of a process on its machine.
_LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")


class InterventionJob:
    """The training of an intervention; see Job. Raises ConfigError for options that only selectors have."""

    def __init__(
        self, config: TrainConfig, dataset: PreparedDataset, learner: InterventionLearner, options: Mapping[str, object]
    ) -> None:
        if config.sequences is not None:
            raise ConfigError(
                f"--sequences: {config.learner} learns from examples", "leave --sequences out, or train lever-lm"
            )
        self.config, self.dataset, self.learner = config, dataset, learner
        self.guard = guard_kinds(config.leak_guard, task_of(dataset))
        self.variant = config.model_name
        load_registry().get("models", config.model)
        config.check_images(dataset.name, dataset.split("train").most_images)
        resolved = config.identity()
        self.identity: dict[str, object] = {
            **common_identity(config, learner, options, dataset),
            "leak_guard": sorted(self.guard),
            **{name: resolved[name] for name in OF_MODEL if name in resolved},
        }

    @property
    def usage(self) -> str:
        """See Job."""
        return f"evaluate it: icltool evaluate --method {self.config.learner} --vectors {{folder}}"

    def provenance(self) -> dict[str, object]:
        """See Job."""
        return from_model(self.identity, self.config.learner, self.config.model)

    def train(self, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See Job. The model is loaded here."""
        config = self.config
        progress.detail(f"loading {config.model_name}")
        model = config.open_model(task_of(self.dataset), **own_device(config))
        cache = open_image_cache(model, config.image_cache_mb * 2**20, config.image_workers, config.image_store(model))

        def features(paths: Sequence[str]) -> Features:
            return None if cache is None else cache.features(paths)

        examples = self.dataset.split("train")
        data = InterventionSet(
            model=model,
            task=task_of(self.dataset),
            examples=examples,
            index=index_set(examples, (), None, guard=self.guard),
            features=features,
            batch_size=config.batch_size,
            expect=(lambda paths: None) if cache is None else cache.expect,
            provenance=self.provenance(),
        )
        finished = False
        try:
            outcome = self.learner.learn_intervention(data, folder, seed, progress)
            finished = True
        finally:
            if cache is not None:
                cache.close(finished)
        return outcome


def own_device(config: TrainConfig) -> dict[str, str]:
    """The device of this process in a distributed training, in which "auto" is not the first GPU."""
    rank = next((os.environ[name] for name in _LOCAL_RANKS if os.environ.get(name, "").isdigit()), None)
    if rank is not None and config.device == "auto" and config.device_map is None:
        import torch

        if torch.cuda.is_available() and int(rank) < torch.cuda.device_count():
            return {"device": f"cuda:{rank}"}
    return {}
