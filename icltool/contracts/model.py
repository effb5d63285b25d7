"""Large vision-language models (LVLMs) behind one adapter contract."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from icltool.contracts.records import Example
from icltool.contracts.task import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """Exactly what a model reads, and what it should answer.

    `text` holds every special token the prompt format puts there (the start token included) and one image marker for each
    path of `images`, in order. The model tokenizes `text + target` once (an encoder-decoder each by itself, see Model)
    and finds where the target begins by token offsets; it adds no token of its own. White space belongs to whichever side
    it is written on: nothing is stripped.
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
    """Beam search over tokens, as transformers has it; one beam is greedy decoding.

    An answer has `min_new_tokens` tokens at least. `repetition_penalty` divides the scores of tokens that are there already
    (1: none). `no_repeat_ngram` is the length of runs of tokens that no answer has twice (0: any).
    """

    max_new_tokens: int
    num_beams: int = 3
    length_penalty: float = 0.0
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0


#: By an image's path what `SupportsImageCache.image_features` gave for it; None where images are read and encoded anew.
Features: TypeAlias = "Mapping[str, Tensor] | None"


@runtime_checkable
class Model(Protocol):
    """A frozen LVLM with its prompt format. All methods give the same result for any batch size, up to rounding.

    Where a batch does not fit in memory, torch's OutOfMemoryError goes to the caller, who tries smaller ones.

    Two further attributes are for models that are made otherwise. `images_per_prompt = 1` says that a prompt has one image,
    the query's: demonstrations are written in it as text alone. `target_apart = True` is of encoder-decoders: the encoder
    reads a prompt's text, the decoder writes its target, and each is tokenized by itself.
    """

    name: str

    def fingerprint(self) -> str:
        """A short hash of weights, precision and prompt format."""
        ...

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """Demonstrations in the given order, then the query without its label; the target is the query's label and what
        the format writes after it: what closes an answer, the separator that ends a demonstration (where its targets have
        one), and EOS where EOS is not the pad token.

        Raises ConfigError for a task that the prompt format does not know.
        """
        ...

    def clean(self, task: Task | str, text: str) -> str:
        """The answer in a raw generation: cut where the prompt format begins the next example, stripped."""
        ...

    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        """One TargetScore per prompt. An empty prompt text or target is a ValueError.

        `features` maps image paths to what `image_features` gave for them; only a SupportsImageCache model is given any.
        """
        ...

    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        """The raw continuation of each prompt's text (targets are ignored), special tokens removed; see `clean`."""
        ...


@runtime_checkable
class HasGenerationDefaults(Protocol):
    """The model's answers are usually searched in a way of their own (captioners of the published runs)."""

    def generation_defaults(self, task: str) -> Mapping[str, Any]:
        """Fields of GenerationOptions that hold for this task where the user does not say otherwise."""
        ...


@runtime_checkable
class SupportsImageCache(Protocol):
    """The model can encode an image once and use the result in any number of prompts."""

    def image_features(self, paths: Sequence[str], batch_size: int) -> list[Tensor]:
        """One tensor per path, on the model's device: what the language model attends to for that image."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """The model can say how long prompts are without running."""

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt's text and target, those that stand for images included."""
        ...


@runtime_checkable
class PromptRenderer(Protocol):
    """Writes a model's prompts, and holds no weights. It may be CountsTokens, LimitsTokens and HoldsConversations, too."""

    @property
    def image_marker(self) -> str:
        """The text that marks each image in a prompt; "" if the text has no marker (the model reads one image beside it)."""
        ...

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """A prompt with the text and the images of `Model.prompt`; its target may end differently."""
        ...


@runtime_checkable
class RendersPrompts(Protocol):
    """Of a model's class: it writes prompts without loading the weights."""

    def prompt_renderer(self, options: Any) -> PromptRenderer:
        """A class method. `options` are an object of the class's `options_model`. Raises ConfigError if the tokenizer, the
        processor or the configuration is missing."""
        ...


@runtime_checkable
class LimitsTokens(Protocol):
    """Of a prompt renderer: the language model reads a limited number of tokens."""

    @property
    def token_limit(self) -> int | None:
        """The largest number of tokens of a prompt with its answer; None if there is no limit, or it is not known."""
        ...


@runtime_checkable
class HoldsConversations(Protocol):
    """Of a prompt renderer: prompts are conversations, which the model's chat template turns into text."""

    def messages(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> list[dict[str, Any]]:
        """The turns of the prompt, each with "role" and "content": a list of parts, {"type": "image"} in the order of the
        prompt's images, or {"type": "text", "text": …}."""
        ...


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as a causal language model reads it.

    `ids` are the input ids of text and target. `units` say for each token what makes it the same token elsewhere: the id,
    and for one that stands for (part of) an image the image too. Where two prompts begin with the same units, keys and
    values of those tokens are the same. `target_start` is the position of the target's first token (len(ids) without a
    target), `shared_end` that of the first token that belongs to the query alone: what stands before it can begin other
    prompts.
    """

    ids: tuple[int, ...]
    units: tuple[Hashable, ...]
    target_start: int
    shared_end: int
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens [start, end) of a prompt, to be computed after the keys and values of those before `start`."""

    tokens: PromptTokens
    start: int
    end: int


#: Keys and values of every layer, each [B, heads, T, head width].
KeysValues: TypeAlias = "Sequence[tuple[Tensor, Tensor]]"


@dataclass(frozen=True, slots=True)
class PrefixExtension:
    """What a forward pass over a batch of spans gives, all on the model's device.

    `log_probs` float64 [B] are the summed log-probabilities in nats of the target tokens that the spans' tokens predict
    (those at positions start + 1 … end, as far as they belong to the target). `keys_values` are those of the spans' own
    tokens, padded on the right to the longest span, or None where they were not asked for.
    """

    log_probs: Tensor
    keys_values: KeysValues | None


@runtime_checkable
class SupportsPrefixCache(Protocol):
    """The model can go on from the keys and values of tokens that were computed before, in other prompts too.

    Scores and answers that are put together this way equal those of `Model.score` and `Model.generate` up to rounding.
    """

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """The tokens of each prompt. Raises what `Model.score` raises for an empty text or target, or too many tokens."""
        ...

    def extend_prefix(
        self, spans: Sequence[Span], past: KeysValues | None, features: Features, keep: bool
    ) -> PrefixExtension:
        """One forward pass over a batch of spans, of which some, not all, may be empty after a past.

        `past` holds each row's keys and values of its tokens [0, start), padded on the left to the longest: row b's are
        the last spans[b].start of T. A layer's are put together when it is asked for, so each is best asked for once, in
        its turn. It is None where every span starts at 0. `keep` asks for the spans' own keys and values. Nothing is read
        back from the device.
        """
        ...


@runtime_checkable
class GeneratesFromPrefix(SupportsPrefixCache, Protocol):
    """The model can write answers, too, from keys and values that were computed before."""

    def generate_from_prefix(
        self, prompts: Sequence[PromptTokens], past: KeysValues, options: GenerationOptions, features: Features
    ) -> list[str]:
        """The raw continuation of each prompt as `Model.generate` gives it, in one batch. `past` holds the keys and values
        of all tokens but the last, padded on the left."""
        ...


@runtime_checkable
class PreparesImages(SupportsImageCache, Protocol):
    """Reading and resizing images is apart from encoding them, so that other processes can do it ahead."""

    def image_reader(self) -> Callable[[str], Any]:
        """A picklable callable: path -> what the vision encoder takes, a numpy array or a mapping of such arrays. It holds no
        weights and touches no device."""
        ...

    def encode_images(self, prepared: Sequence[Any]) -> list[Tensor]:
        """One tensor for each prepared image, in one batch; `image_features` of a path is this of its prepared image."""
        ...


@runtime_checkable
class KnowsStyles(Protocol):
    """The model was trained on captions in certain styles (PersonalityCaptions)."""

    @property
    def styles(self) -> Sequence[str]:
        """Their names; empty where that is not known."""
        ...


@runtime_checkable
class HasPrecision(Protocol):
    """The adapter says in which precision the model answers, for the record."""

    @property
    def precision(self) -> str:
        """Such as "bfloat16"."""
        ...


@runtime_checkable
class RunsOnDevice(Protocol):
    """The adapter says where the model runs, so that batches, caches and the measuring of costs suit the place."""

    @property
    def device(self) -> torch.device:
        """The device that takes the model's inputs."""
        ...
