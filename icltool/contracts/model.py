"""Large vision-language models (LVLMs) behind one adapter contract."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from icltool.contracts.records import Example
from icltool.contracts.task import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """The exact input of a model, and the answer expected of it.

    `text` includes every special token of the prompt format (the start token too) and one image marker per path of `images`,
    in order. The model tokenizes `text + target` once (an encoder-decoder each separately, see Model), locates the target by
    token offsets and adds no tokens. White space belongs to the side that it is written on: nothing is stripped. `draw`
    stands for the query where an answer is sampled: it seeds the random numbers, and nothing else depends on it.
    """

    text: str
    images: tuple[str, ...]
    target: str = ""
    draw: int = 0


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
    """Beam search over tokens, as transformers has it; one beam is greedy decoding, or sampling if `temperature` is above 0.

    An answer has at least `min_new_tokens` tokens. `repetition_penalty` divides the scores of tokens that have occurred (1: no
    penalty). No answer repeats a sequence of `no_repeat_ngram` tokens (0: repetition is allowed). Sampling draws each token
    from the softmax of logits / `temperature`, restricted to the most probable tokens that together have the probability
    `top_p`; `sampling_seed` and `Prompt.draw` seed it.
    """

    max_new_tokens: int
    num_beams: int = 3
    length_penalty: float = 0.0
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    sampling_seed: int = 0

    def record(self) -> dict[str, int | float]:
        """All options for a record or an identity; those of sampling only if answers are sampled."""
        names = [field.name for field in fields(self)]
        if not self.temperature:
            names = [name for name in names if name not in ("temperature", "top_p", "sampling_seed")]
        return {name: getattr(self, name) for name in names}


#: The result of `SupportsImageCache.image_features` by image path; None if the model reads and encodes the images itself.
Features: TypeAlias = "Mapping[str, Tensor] | None"


@runtime_checkable
class Model(Protocol):
    """A frozen LVLM with its prompt format. All methods give the same result for any batch size, up to rounding.

    If a batch does not fit in memory, torch's OutOfMemoryError reaches the caller, which tries smaller batches.

    Two further attributes are optional. `images_per_prompt = 1` means that a prompt has one image, the query's, and that
    demonstrations are text only. `target_apart = True` marks an encoder-decoder: the encoder reads the text of a prompt, the
    decoder writes its target, and each is tokenized separately.
    """

    name: str

    def fingerprint(self) -> str:
        """A short hash of weights, precision and prompt format."""
        ...

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The demonstrations in this order, then the query without its label. The target is the query's label and whatever
        the format writes after a label: the closing of an answer, the separator after a demonstration (if targets have
        one), and EOS unless EOS is the pad token.

        Raises ConfigError for a task that the prompt format does not know.
        """
        ...

    def clean(self, task: Task | str, text: str) -> str:
        """The answer in a raw generation: stripped, and cut where the prompt format would begin the next example."""
        ...

    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        """One TargetScore per prompt. Raises ValueError for an empty text or target.

        `features` maps image paths to the results of `image_features`; only a SupportsImageCache model receives any.
        """
        ...

    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        """The raw continuation of each prompt's text, without special tokens; see `clean`. Targets are ignored."""
        ...


@runtime_checkable
class HasGenerationDefaults(Protocol):
    """The model has generation defaults (those of its published runs, for captioners)."""

    def generation_defaults(self, task: str) -> Mapping[str, Any]:
        """Fields of GenerationOptions that apply to this task unless the user sets them."""
        ...


@runtime_checkable
class SupportsImageCache(Protocol):
    """The model can encode an image once and use the result in any number of prompts."""

    def image_features(self, paths: Sequence[str], batch_size: int) -> list[Tensor]:
        """One tensor per path, on the model's device: what the language model attends to for that image."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """The model counts the tokens of prompts without running."""

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        """The number of tokens of each prompt's text and target, image tokens included."""
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


@runtime_checkable
class HasTemplateOptions(Protocol):
    """Of a prompt renderer: a chat template with variables writes the prompts."""

    @property
    def template_options(self) -> Mapping[str, object]:
        """The variables that are set, by the user or by default, with their values."""
        ...


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as a causal language model reads it.

    `ids` are the input ids of text and target. `units` identify each token across prompts: by its id and, for an image
    token, by its image. Two prompts that begin with the same units have the same keys and values for those tokens.
    `target_start` is the position of the first token of the target (len(ids) without a target), `shared_end` that of the
    first token that belongs to the query alone: other prompts may begin with the tokens before it. `blocks` are the tokens
    [start, end) of images whose tokens attend to later tokens of the same image, in order: no span starts or ends inside.
    `draw` is the prompt's.
    """

    ids: tuple[int, ...]
    units: tuple[Hashable, ...]
    target_start: int
    shared_end: int
    images: tuple[str, ...]
    blocks: tuple[tuple[int, int], ...] = ()
    draw: int = 0

    def cut(self, position: int) -> int:
        """The last position up to `position` at which a span may start or end."""
        return next((start for start, end in self.blocks if start < position < end), position)


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
    """The result of a forward pass over a batch of spans, on the model's device.

    `log_probs` float64 [B] are the summed log-probabilities in nats of the target tokens that the spans' tokens predict
    (those at positions start + 1 … end, as far as they belong to the target). `keys_values` are those of the spans' own
    tokens, padded on the right to the longest span, or None if they were not requested.
    """

    log_probs: Tensor
    keys_values: KeysValues | None


@runtime_checkable
class SupportsPrefixCache(Protocol):
    """The model reuses keys and values of a prefix, in other prompts too.

    Scores and answers computed this way equal those of `Model.score` and `Model.generate` up to rounding.
    """

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """The tokens of each prompt. Raises what `Model.score` raises for an empty text or target, or too many tokens."""
        ...

    def extend_prefix(
        self, spans: Sequence[Span], past: KeysValues | None, features: Features, keep: bool
    ) -> PrefixExtension:
        """One forward pass over a batch of spans. Some spans with a past may be empty, but not all.

        `past` holds each row's keys and values of its tokens [0, start), padded on the left to the longest: row b's are
        the last spans[b].start of T. A layer's are assembled on access, so access each layer once, in order. `past` is None
        if every span starts at 0. `keep` requests the keys and values of the spans themselves. Nothing is copied back from
        the device.
        """
        ...


@runtime_checkable
class GeneratesFromPrefix(SupportsPrefixCache, Protocol):
    """The model also generates answers from keys and values of a prefix."""

    def generate_from_prefix(
        self, prompts: Sequence[PromptTokens], past: KeysValues, options: GenerationOptions, features: Features
    ) -> list[str]:
        """The raw continuation of each prompt, as from `Model.generate`, in one batch. `past` holds the keys and values of all
        tokens except the last, padded on the left."""
        ...


@runtime_checkable
class PreparesImages(SupportsImageCache, Protocol):
    """Reading and resizing images is separate from encoding them, so that other processes can do it in advance."""

    def image_reader(self) -> Callable[[str], Any]:
        """A picklable callable from a path to the vision encoder's input: a numpy array or a mapping of arrays. It holds no
        weights and uses no device."""
        ...

    def encode_images(self, prepared: Sequence[Any]) -> list[Tensor]:
        """One tensor per prepared image, in one batch: the same as `image_features` of its path."""
        ...


@runtime_checkable
class KnowsStyles(Protocol):
    """The model was trained on captions in certain styles (PersonalityCaptions)."""

    @property
    def styles(self) -> Sequence[str]:
        """The names of the styles; empty if they are not known."""
        ...


@runtime_checkable
class HasPrecision(Protocol):
    """The adapter reports the precision that the model runs in, for the record."""

    @property
    def precision(self) -> str:
        """For example "bfloat16"."""
        ...


@runtime_checkable
class RunsOnDevice(Protocol):
    """The adapter reports where the model runs; batch sizes, caches and cost measurements depend on it."""

    @property
    def device(self) -> torch.device:
        """The device that takes the model's inputs."""
        ...
