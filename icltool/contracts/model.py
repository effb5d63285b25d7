"""Large vision-language models (LVLMs) behind one adapter contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from icltool.contracts.records import Example


@dataclass(frozen=True, slots=True)
class Prompt:
    """Exactly what a model reads, and what it should answer.

    `text` holds every special token the prompt format puts there (the start token included) and one image marker for each
    path of `images`, in order. The model tokenizes `text + target` once and finds where the target begins by token
    offsets; it adds no token of its own. White space belongs to whichever side it is written on: nothing is stripped.
    """

    text: str
    images: tuple[str, ...]
    target: str = ""


@dataclass(frozen=True, slots=True)
class TargetScore:
    """`log_prob` is the target's summed log-probability in nats, `tokens` how many tokens it has."""

    log_prob: float
    tokens: int

    @property
    def mean(self) -> float:
        """Mean log-probability per token in nats."""
        return self.log_prob / self.tokens


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Beam search over tokens, as transformers has it; one beam is greedy decoding."""

    max_new_tokens: int
    num_beams: int = 3
    length_penalty: float = 0.0


@runtime_checkable
class Model(Protocol):
    """A frozen LVLM with its prompt format. All methods give the same result for any batch size, up to rounding.

    Where a batch does not fit in memory, torch's OutOfMemoryError goes to the caller, who tries smaller ones.
    """

    name: str

    def fingerprint(self) -> str:
        """A short hash of weights, precision and prompt format."""
        ...

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """Demonstrations in the given order, then the query without its label; the target is the query's label, the
        separator that ends a demonstration, and EOS where EOS is not the pad token.

        Raises ConfigError for a task that the prompt format does not know.
        """
        ...

    def clean(self, task: str, text: str) -> str:
        """The answer in a raw generation: cut where the prompt format begins the next example, stripped."""
        ...

    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        """One TargetScore per prompt. An empty prompt text or target is a ValueError.

        `features` maps image paths to what `image_features` gave for them; only a SupportsImageCache model is given any.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """The raw continuation of each prompt's text (targets are ignored), special tokens removed; see `clean`."""
        ...


@runtime_checkable
class SupportsImageCache(Protocol):
    """The model can encode an image once and use the result in any number of prompts."""

    def image_features(self, paths: Sequence[str], batch_size: int) -> list[Any]:
        """One tensor per path, on the model's device: what the language model attends to for that image."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """The model can say how long prompts are without running."""

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt's text and target, those that stand for images included."""
        ...
