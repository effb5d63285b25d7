"""Fine-tuning: what a learner needs from a model whose own weights it changes, and what it receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from icltool.contracts.arrays import FloatArray
from icltool.contracts.intervention import AnswerBatch
from icltool.contracts.learner import Examples, TrainingOutcome
from icltool.contracts.metric import Metric
from icltool.contracts.model import GenerationOptions, Model, Prompt
from icltool.contracts.progress import Progress
from icltool.contracts.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training images are varied. `crop` "resized" cuts out a part of `scale` of the image's area (aspect ratio 3/4
    to 4/3) and resizes it to the model's size; "random" resizes the shorter side to `shorter` pixels and cuts out a square
    of the model's size; "none" reads the image as in evaluation. `flip` mirrors half of the images.

    If `shorter` is None, it is the length that the model itself resizes to in evaluation, which grows with `resize_images`;
    256 for models that resize no side.
    """

    crop: Literal["resized", "random", "none"] = "none"
    scale: tuple[float, float] = (0.5, 1.0)
    shorter: int | None = None
    flip: bool = False


class PixelReader(Protocol):
    """Reads images for training. It can be pickled, holds no weights and touches no device."""

    def __call__(self, image: str, generator: np.random.Generator | None = None, flip: bool = True) -> FloatArray:
        """float32 [3, H, W]. With `generator`, varied at random; without, as in evaluation. With `flip` false it is never
        mirrored. Crops keep the regions of the reference whole (see `icltool.contracts.images`). Raises DataError for an
        image that cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class BeamSample:
    """One finished beam: token ids including the end token, if it ended with one, its text as `Model.generate` gives it,
    and its summed log-probability in nats over the length by which beams were ranked."""

    ids: tuple[int, ...]
    text: str
    score: float


@runtime_checkable
class SupportsFineTuning(Protocol):
    """The model's own weights can be trained, on prompts of one image each.

    `network` is the torch module that holds them all. A learner puts what it trains into float32, sets `requires_grad` and
    train() or eval() itself; `network` is never moved or replaced. Pixels are float32 tensors [B, 3, H, W] on the model's
    device, one image for each prompt (see `images` of `fine_tuning_batch`).
    """

    network: nn.Module

    def fine_tuning_recipe(self, task: str) -> Mapping[str, object]:
        """Options of the learner `captioner` with which the published runs trained this family; the user's override
        them."""
        ...

    def fine_tuning_parts(self) -> Mapping[str, Sequence[str]]:
        """Parts that can be frozen, each as prefixes of names in `network.named_parameters()`. A frozen part is put into
        eval mode, including its dropout and batch statistics. A prefix that begins with "!" excludes parameters from the
        part. A part whose name begins with "_" is not used to answer: it is never trained and cannot be named."""
        ...

    def layer_ids(self) -> Mapping[str, int]:
        """The layer of each parameter for layer-wise learning rates: 0 before the first layer, the number of layers + 1
        after the last. Empty if the model has none."""
        ...

    def resize_images(self, size: int) -> None:
        """Makes the model read square images of `size` pixels from now on; position embeddings, if any, are resized
        bicubically. ConfigError for a size that it cannot read."""
        ...

    def pixel_reader(self, augmentation: Augmentation) -> PixelReader:
        """The reader of images for `fine_tuning_batch` and `sample_beams`."""
        ...

    def plain_prompt(self, text: str, image: str, target: str) -> Prompt:
        """A prompt that asks `text` of one image and should be answered by `target`, with the model's special tokens around
        them, for auxiliary tasks. A caption that `text` quotes (`" a caption "`) is cleaned as the model's captions are."""
        ...

    def fine_tuning_batch(
        self,
        prompts: Sequence[Prompt],
        pixels: Tensor,
        max_target_tokens: int | None = None,
        answers: Sequence[Sequence[int]] | None = None,
        images: Sequence[int] | None = None,
    ) -> AnswerBatch:
        """Prompts, their images and targets as one batch. Targets are cut after `max_target_tokens` tokens; an
        encoder-decoder keeps the end token as the last of these if there are two or more. `answers` are token ids that
        replace the prompts' own targets (beams; several rows may share a prompt). `images` says which row of `pixels` each
        prompt reads, so that an image is encoded once for all its prompts; without it prompt i reads row i, and their
        numbers are equal. ValueError if they do not match."""
        ...

    def answer_logits(self, batch: AnswerBatch) -> Tensor:
        """Logits [N, vocabulary] at the batch's positions, with gradients."""
        ...

    def sample_beams(
        self, prompts: Sequence[Prompt], pixels: Tensor, options: GenerationOptions
    ) -> list[list[BeamSample]]:
        """`options.num_beams` finished beams for each prompt, best first, by the model as it is now in eval mode; without
        gradients."""
        ...

    def save_fine_tuned(self, file: Path, names: Sequence[str], about: Mapping[str, object]) -> None:
        """Writes these tensors of the network's state dict to a safetensors file that a model of the same name loads on top
        of its weights (`--model-path FILE`). `about` holds JSON values for the header; the model adds what it needs to load
        the file."""
        ...

    def export(self, folder: Path) -> None:
        """Writes the whole model as it is now, with processor and tokenizer, to a folder that `--model-path` accepts."""
        ...


class TunableModel(Model, SupportsFineTuning, Protocol):
    """A model whose own weights can be trained."""


@dataclass(frozen=True)
class FineTuningSet:
    """A model to be fine-tuned, and its training data. `development` are examples that choose the best weights: they are
    never trained on, and never the queries of an evaluation. `metric` builds a metric by name. `batch_size` is the number
    of prompts per batch without gradients. `provenance` goes into files and card.
    """

    model: Model
    task: Task
    examples: Examples
    development: Examples
    metric: Callable[[str], Metric]
    generation: GenerationOptions
    batch_size: int = 8
    provenance: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class StartsFromTrained(Protocol):
    """A FineTuningLearner that can continue from a model that was fine-tuned before."""

    @property
    def starts_from_trained(self) -> bool:
        """Whether it does so with its options; weights must then be named."""
        ...


@runtime_checkable
class FineTuningLearner(Protocol):
    """Fine-tunes a model's own weights. Built from its own options by the registry.

    See HasIdentity and StartsFromTrained for its optional parts.
    """

    def tune(self, data: FineTuningSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Writes `last.safetensors`, `best.safetensors` and a card into `folder`; the same data, options and seed give the same
        files on one machine, interrupted or not. The state that it keeps there to resume is called `resume` with any
        suffix. The model's weights have changed afterwards."""
        ...
