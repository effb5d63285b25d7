"""What adapters share: prompts written by a format, an identity derived from the weights, image encoding in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from icltool.components.models.shared.loading import load_model, text_limit
from icltool.components.models.shared.options import TransformersOptions
from icltool.components.models.shared.weights import Weights, fingerprint
from icltool.contracts import Example, Prompt, PromptRenderer, Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from icltool.components.models.shared.decoder_prefix_cache import DecoderPrefixCache
    from icltool.components.models.shared.loading import ModelClass, Network


class PromptWriter(Protocol):
    """A prompt format. Its repr is part of the model's identity and is the same in every process."""

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """See Model.prompt."""
        ...

    def clean(self, task: Task | str, text: str) -> str:
        """See Model.clean."""
        ...

    @property
    def image_marker(self) -> str:
        """See PromptRenderer."""
        ...


class Adapter:
    """Base of a Model whose prompts `format` writes. `source` is the location of its weights; see `Loaded` for the rest."""

    name: str
    source: str
    precision: str
    model: Network
    device: torch.device
    format: PromptWriter

    def _load(self, model_class: ModelClass, weights: Weights, options: TransformersOptions) -> None:
        """Loads the weights and records where the model runs. Raises what `load_model` raises."""
        loaded = load_model(model_class, weights, options)
        self.model, self.device, self.precision = loaded.model, loaded.device, loaded.precision
        self.source = weights.source

    def fingerprint(self) -> str:
        """See Model."""
        return fingerprint(self.source, self.precision, repr(self.format))

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """See Model."""
        return self.format.prompt(task, demonstrations, query)

    def clean(self, task: Task | str, text: str) -> str:
        """See Model."""
        return self.format.clean(task, text)

    def _use_prefix_cache(self, cache: DecoderPrefixCache) -> None:
        """Makes the model SupportsPrefixCache and GeneratesFromPrefix."""
        self.prompt_tokens, self.extend_prefix = cache.prompt_tokens, cache.extend_prefix
        self.generate_from_prefix = cache.generate_from_prefix


class PromptAdapter(Adapter):
    """An adapter whose tokenizer, processor and `config` are read apart from the weights: RendersPrompts."""

    config: PreTrainedConfig

    def _open(self, options: Any) -> Weights:
        """Reads all that prompts need, and finds the weights. Raises ConfigError if something is missing or does not fit."""
        raise NotImplementedError

    @classmethod
    def prompt_renderer(cls, options: Any) -> PromptRenderer:
        """See RendersPrompts: the adapter without its weights."""
        renderer = cls.__new__(cls)
        renderer._open(options)
        return renderer

    @property
    def image_marker(self) -> str:
        """See PromptRenderer."""
        return self.format.image_marker

    @property
    def token_limit(self) -> int | None:
        """See LimitsTokens."""
        return text_limit(self.config)


class EncodesImages(ABC):
    """SupportsImageCache for a model that reads images separately from encoding them (PreparesImages)."""

    @abstractmethod
    def image_reader(self) -> Callable[[str], Any]:
        """See PreparesImages."""

    @abstractmethod
    def encode_images(self, prepared: Sequence[Any]) -> list[torch.Tensor]:
        """See PreparesImages."""

    @torch.inference_mode()
    def image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
        """See SupportsImageCache."""
        features: list[torch.Tensor] = []
        read = self.image_reader()
        for start in range(0, len(paths), batch_size):
            features += self.encode_images([read(path) for path in paths[start : start + batch_size]])
        return features
