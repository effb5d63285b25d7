"""Fine-tuning of a model's own weights: on examples of the index set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.train.interventions import OF_MODEL, own_device
from icltool.commands.train.job import common_identity, from_model
from icltool.commands.train.options import TrainConfig
from icltool.config.tasks import task_of
from icltool.contracts import (
    NO_IMAGE,
    Example,
    Examples,
    FineTuningLearner,
    FineTuningSet,
    IntArray,
    Metric,
    Progress,
    SupportsFineTuning,
    TrainingOutcome,
    keyed_generator,
)
from icltool.contracts.fine_tuning import StartsFromTrained
from icltool.engine.generation import generation_options
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component, load_registry

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset, Records

#: The prepared split that chooses the best weights; a data set without it holds out a share of the index set, by image and
#: near-duplicates, and at most so many examples.
DEVELOPMENT, SHARE, MOST = "development", 0.05, 5000


class FineTuningJob:
    """The training of a captioner; see Job. Raises ConfigError for options that only selectors have, and for a ranked task."""

    def __init__(
        self, config: TrainConfig, dataset: PreparedDataset, learner: FineTuningLearner, options: Mapping[str, object]
    ) -> None:
        if config.sequences is not None:
            raise ConfigError(
                f"--sequences: {config.learner} learns from examples", "leave --sequences out, or train lever-lm"
            )
        task = task_of(dataset)
        if task.ranked:
            raise ConfigError(
                f"{config.learner} learns to write answers, but those of task {task.name} are chosen from a list",
                "train it on another task of the data set with --task",
            )
        if config.model_path is None and isinstance(learner, StartsFromTrained) and learner.starts_from_trained:
            raise ConfigError(
                "scst=true needs the weights of a captioner trained by cross-entropy",
                "train one without scst=true first, then add --model-path CHECKPOINT, the folder of that training",
            )
        self.config, self.dataset, self.learner = config, dataset, learner
        started = _content(config.model_path)
        self.variant = config.model if started else config.model_name  # names of names would grow with every training
        load_registry().get("models", config.model)
        config.check_images(dataset.name, dataset.split("train").most_images)
        resolved = config.identity()
        self.identity: dict[str, object] = {
            **common_identity(config, learner, options, dataset),
            **{name: resolved[name] for name in OF_MODEL if name in resolved},
            **({"started_from": started} if started else {}),
        }

    @property
    def usage(self) -> str:
        """See Job."""
        model = self.config.model
        return f"evaluate it: icltool evaluate --method finetuned --model {model}, or as a model: --model {{folder}}"

    def provenance(self) -> dict[str, object]:
        """See Job."""
        return from_model(self.identity, self.config.learner, self.config.model, fine_tuned=True)

    def train(self, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See Job. The model is loaded here."""
        config = self.config
        progress.detail(f"loading {config.model_name}")
        model = config.open_model(task_of(self.dataset), **own_device(config))
        if not isinstance(model, SupportsFineTuning):
            able = "blip2-…, instructblip-…, blip-…, ofa-…"
            raise ConfigError(f"--model {config.model} cannot be fine-tuned", f"models that can: {able}")
        task = task_of(self.dataset)
        examples, development = self._examples()
        progress.detail(f"training examples: {len(examples):,}; development examples: {len(development):,}")
        size = config.batch_size
        data = FineTuningSet(
            model=model,
            task=task,
            examples=examples,
            development=development,
            metric=_metric,
            generation=generation_options({}, task, model),
            batch_size=size if isinstance(size, int) else 8,
            provenance=self.provenance(),
        )
        return self.learner.tune(data, folder, seed, progress)

    def _examples(self) -> tuple[Examples, Examples]:
        """The training examples, and those that choose the best weights."""
        records = self.dataset.query_records("train")
        if DEVELOPMENT in self.dataset.splits:
            return records, self.dataset.query_records(DEVELOPMENT)
        training, held = held_out_rows(records, self.config.seed)
        return Part(records, training), Part(records, held)


class Part:
    """Some rows of prepared records, as Examples."""

    def __init__(self, records: Records, rows: IntArray) -> None:
        self._records, self._rows = records, rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, rows: IntArray | Sequence[int]) -> list[Example]:
        """See Examples."""
        return self._records.rows(self._rows[np.asarray(rows, dtype=np.int64)])


def held_out_rows(records: Records, seed: int) -> tuple[IntArray, IntArray]:
    """(training rows, held-out rows), both ascending. Examples of one image, or of near-duplicates, stay together. DataError if
    there is only one image."""
    groups, images = np.asarray(records.groups), np.asarray(records.image_ids)
    kinds = np.where(groups >= 0, 0, 1)
    _, units = np.unique(np.stack([kinds, np.where(groups >= 0, groups, images)]), axis=1, return_inverse=True)
    units = units.reshape(-1)
    if records.more_image_ids is not None:
        units = _joined(units, np.column_stack([images, records.more_image_ids]))
    count = int(units.max()) + 1
    if count < 2:
        raise DataError("a captioner needs at least two images: one to train on, one to choose the best weights by")
    least = max(1, min(MOST, round(SHARE * len(units))))
    order = keyed_generator(seed, "tuning.development").permutation(count)
    sizes = np.bincount(units, minlength=count)[order]
    number = min(int(np.searchsorted(np.cumsum(sizes), least)) + 1, count - 1)
    held = np.isin(units, order[:number])
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def _joined(units: IntArray, images: IntArray) -> IntArray:
    """The units int64 [N], numbered from 0, with those joined that share one of the images int64 [N, M], directly or by
    others."""
    _, image_of = np.unique(images, return_inverse=True)
    image_of = image_of.reshape(images.shape)
    place = images != NO_IMAGE
    joined = units.copy()
    while True:
        of_image = np.full(image_of.max() + 1, len(units), dtype=np.int64)
        np.minimum.at(of_image, image_of[place], np.broadcast_to(joined[:, None], images.shape)[place])
        of_unit = np.full(units.max() + 1, len(units), dtype=np.int64)
        np.minimum.at(of_unit, units, np.where(place, of_image[image_of], len(units)).min(axis=1))
        if np.array_equal(of_unit[units], joined):
            return np.unique(joined, return_inverse=True)[1].reshape(-1)
        joined = of_unit[units]


def _metric(name: str) -> Metric:
    metric: Metric = component("metrics", name)
    return metric


def _content(path: str | None) -> str:
    """The digest of fine-tuned weights that a training starts from; "" for other weights."""
    if path is None or not Path(path).exists():
        return ""
    from icltool.components.models.shared.fine_tuned import fine_tuned_file, read_fine_tuned

    file = fine_tuned_file(Path(path))
    return "" if file is None else read_fine_tuned(file).digest
