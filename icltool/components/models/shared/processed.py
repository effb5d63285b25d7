"""What adapters share that use a transformers processor, which resizes images and writes their tokens."""

from __future__ import annotations

import contextlib
import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from icltool.components.models.shared.beam_images import images_by_beam
from icltool.components.models.shared.decoder_hooks import HookedDecoder, answers_at
from icltool.components.models.shared.images import cannot_take, read_image
from icltool.components.models.shared.loading import check_image_processor, loading_errors, read_config, text_limit
from icltool.components.models.shared.options import TransformersOptions
from icltool.components.models.shared.scoring import (
    beam_options,
    decoded,
    end_tokens,
    forward_scores,
    plain_generation,
)
from icltool.components.models.shared.tokenizer_file import as_in_file
from icltool.components.models.shared.tokens import batches_by_length, check_length, check_prompts, in_batches
from icltool.components.models.shared.weights import Weights, weights_of
from icltool.contracts import AnswerBatch, Features, GenerationOptions, Prompt, TargetScore
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import (
        BatchEncoding,
        PreTrainedConfig,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        ProcessorMixin,
    )

    from icltool.components.models.shared.loading import ModelClass

    class Processor(ProcessorMixin):
        """A transformers processor for images and text. Its parts depend on its class."""

        def __getattr__(self, name: str) -> Any: ...


#: Inputs with one value per token, [B, T].
_BY_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})

#: Keyword arguments of a model's forward pass: tensors, and in newer releases of transformers outputs of the image encoder.
ModelInputs = dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """`inputs` of the model for one batch, on its device. `spans` are each prompt's target as positions (first, end)."""

    inputs: ModelInputs
    spans: list[tuple[int, int]]


class ProcessedModel(HookedDecoder):
    """An LVLM of transformers with its processor; subclasses add the prompts.

    `padding_side` applies to scoring; results do not depend on it. Generation always pads on the left.
    """

    padding_side = "right"

    options_model: type[TransformersOptions] = TransformersOptions

    def __init__(self, options: TransformersOptions) -> None:
        """Loads processor and weights. Raises ConfigError when weights are missing or do not fit."""
        weights = self._open(options)
        self._load(self.model_class(), weights, options)
        self._forward = set(inspect.signature(self.model.forward).parameters)
        self.end_tokens = end_tokens(self.model, self.tokenizer)
        self.image_tokens = image_token_ids(self.processor, self.model.config)
        plain_generation(self.model, self.end_tokens)

    @abstractmethod
    def model_class(self) -> ModelClass:
        """The class of transformers that holds the weights."""

    def _open(self, options: Any) -> Weights:
        self.name = name = options.name
        weights = weights_of(options)
        with loading_errors(name, weights):
            self.processor = load_processor(weights)
            check_image_processor(name, self.processor.image_processor)
        self.tokenizer: PreTrainedTokenizerFast = self.processor.tokenizer
        prepare_tokenizer(self.tokenizer, name, weights.source)
        self.recorder = RecordingTokenizer(self.tokenizer)
        self.processor.tokenizer = self.recorder
        self._check_processor()
        self.config = read_config(self.model_class(), name, weights)
        return weights

    def _check_processor(self) -> None:
        """Raises ConfigError for an unsuitable processor, before the weights are loaded."""

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        """See CountsTokens. Reads and resizes the images."""
        return [int(self._read([p.text + p.target], [p])["attention_mask"].sum()) for p in prompts]

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        """See Model.score."""
        check_prompts(prompts, with_target=True)

        def compute(batch: Sequence[int]) -> list[TargetScore]:
            encoded = self._encode([prompts[i] for i in batch], features, self.padding_side, with_target=True)
            return forward_scores(self.model, encoded.inputs, encoded.spans)

        return in_batches(self._batches(prompts, batch_size), compute)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        """See Model.generate. Image tokens are never generated."""
        check_prompts(prompts, with_target=False)

        def compute(batch: Sequence[int]) -> list[str]:
            chosen = [prompts[i] for i in batch]
            search = beam_options(self.tokenizer.pad_token_id, options, [p.draw for p in chosen])
            if self.image_tokens:
                search["suppress_tokens"] = self.image_tokens
            inputs = self._encode(chosen, features, "left", reserve=options.max_new_tokens).inputs
            with images_by_beam(self.model, inputs, [len(p.images) for p in chosen]):
                output = self.model.generate(**inputs, **search)
            return decoded(self.tokenizer, output[:, inputs["input_ids"].shape[1] :])

        return in_batches(self._batches(prompts, batch_size), compute)

    def answer_batch(self, prompts: Sequence[Prompt], features: Features) -> AnswerBatch:
        """See SupportsDecoderHooks."""
        check_prompts(prompts, with_target=True)
        with torch.no_grad():
            if features is not None:  # tensors made in inference mode cannot be saved for a backward pass
                features = {path: features[path].clone() for prompt in prompts for path in prompt.images}
            encoded = self._encode_all(prompts, features)
        return answers_at(encoded.inputs, encoded.spans)

    def _encode_all(self, prompts: Sequence[Prompt], features: Features) -> Encoded:
        """One batch, padded on the right, of prompts with and without images, which the processor accepts only separately."""
        groups = [[i for i, p in enumerate(prompts) if bool(p.images) == with_images] for with_images in (True, False)]
        parts = [
            (rows, self._encode([prompts[i] for i in rows], features, "right", with_target=True))
            for rows in groups
            if rows
        ]
        return parts[0][1] if len(parts) == 1 else _merged(parts, int(self.tokenizer.pad_token_id))

    def _batches(self, prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
        """Positions in batches of similar prompts, longest first. Prompts with and without images are in separate batches,
        because processors accept images for all prompts of a batch or for none."""
        batches = []
        for with_images in (True, False):
            part = [i for i, p in enumerate(prompts) if bool(p.images) == with_images]
            longest = 1 + max((len(prompts[i].text) for i in part), default=0)
            lengths = [len(prompts[i].images) * longest + len(prompts[i].text) for i in part]
            batches += [[part[k] for k in batch] for batch in batches_by_length(lengths, batch_size)]
        return batches

    def _encode(
        self,
        prompts: Sequence[Prompt],
        features: Features,
        side: str,
        with_target: bool = False,
        reserve: int = 0,
    ) -> Encoded:
        """The processor's output for one batch. Raises DataError if a prompt, with `reserve` further tokens, exceeds the
        model's limit."""
        self.recorder.padding_side = side
        texts = [p.text + p.target if with_target else p.text for p in prompts]
        inputs = self._processed(texts, prompts, features)
        longest = int(inputs["attention_mask"].sum(1).max())
        check_length(longest, text_limit(self.model.config, reserve))
        spans = self.recorder.target_spans([p.target for p in prompts]) if with_target else []
        return Encoded(inputs, spans)

    def _processed(self, texts: list[str], prompts: Sequence[Prompt], features: Features) -> ModelInputs:
        """Model inputs on the device; subclasses with an image cache use `features` here."""
        return self._on_device(self._read(texts, prompts))

    def _read(self, texts: list[str], prompts: Sequence[Prompt]) -> Mapping[str, torch.Tensor]:
        """What the processor makes of texts and images."""
        paths = dict.fromkeys(path for p in prompts for path in p.images)
        by_path = {path: read_image(path) for path in paths}
        images = [[by_path[path] for path in p.images] for p in prompts] if by_path else None
        with image_faults(self.name, self.processor, by_path):
            inputs: Mapping[str, torch.Tensor] = self.processor(text=texts, images=images, return_tensors="pt")
            return inputs

    def _on_device(self, inputs: Mapping[str, torch.Tensor]) -> ModelInputs:
        moved = {}
        for key, value in inputs.items():
            tensor = value.to(self.device) if isinstance(value, torch.Tensor) else value
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                tensor = tensor.to(self.model.dtype)
            moved[key] = tensor
        return moved


@contextlib.contextmanager
def image_faults(name: str, processor: Processor, images: Mapping[str, Image]) -> Iterator[None]:
    """Turns a processor's error about an image (for example too long and narrow) into a DataError that names the image."""
    try:
        yield
    except ValueError as error:
        for path, image in images.items():
            try:
                processor.image_processor(images=[image], return_tensors="pt")
            except ValueError as fault:
                raise cannot_take(path, image, fault, f"model {name}") from error
        raise


def _merged(parts: Sequence[tuple[Sequence[int], Encoded]], pad: int) -> Encoded:
    """Merges batches, each given as (its rows in the result, batch). Only the first has images, whose inputs are kept as is."""
    inputs = dict(parts[0][1].inputs)
    shapes = [part.inputs["input_ids"].shape for _, part in parts]
    shape = (sum(rows for rows, _ in shapes), max(columns for _, columns in shapes))
    spans = [(0, 0)] * shape[0]
    for key in {key for _, part in parts for key in part.inputs} & _BY_TOKEN:
        known = next(part.inputs[key] for _, part in parts if key in part.inputs)
        inputs[key] = known.new_full(shape, pad if key == "input_ids" else 0)
    for rows, part in parts:
        for key in part.inputs.keys() & _BY_TOKEN:
            inputs[key][list(rows), : part.inputs[key].shape[1]] = part.inputs[key]
        for row, span in zip(rows, part.spans, strict=True):
            spans[row] = span
    return Encoded(inputs, spans)


class RecordingTokenizer:
    """Wraps a processor's tokenizer and remembers the texts that it tokenized, into which the processor has written the image
    tokens. So targets are located by offsets in exactly the text that the model reads.

    It adds no special tokens, and pads on `padding_side`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.padding_side = "right"
        self.texts: list[str] = []
        self._offsets: list[list[tuple[int, int]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: Sequence[str], **options: object) -> BatchEncoding:
        forced = {"padding": True, "padding_side": self.padding_side, "add_special_tokens": False, "truncation": False}
        encoded: BatchEncoding = self._tokenizer(text, **{**options, **forced, "return_offsets_mapping": True})
        offsets = encoded.pop("offset_mapping")
        self._offsets = offsets.tolist() if isinstance(offsets, torch.Tensor) else offsets
        self.texts = list(text)
        return encoded

    def target_spans(self, targets: Sequence[str]) -> list[tuple[int, int]]:
        """(first, end) positions of each target in the last call; a token belongs to it if it extends beyond the last
        character before it. Padding tokens cover no characters."""
        spans = []
        for text, offsets, target in zip(self.texts, self._offsets, targets, strict=True):
            border = len(text) - len(target)
            if not text.endswith(target):
                raise ValueError(f"the processor changed the target {target!r}")
            inside = [k for k, (_, end) in enumerate(offsets) if end > border]
            spans.append((inside[0], inside[-1] + 1))
        return spans


def load_processor(weights: Weights) -> Processor:
    """The processor in `weights`, with the image processor for PIL images if there is one: the same
    pixels on every machine, whatever release of torchvision it has."""
    from transformers import AutoImageProcessor, AutoProcessor

    processor: Processor = AutoProcessor.from_pretrained(weights.source, **weights.where)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ConfigError(f"{weights.source} has no processor for images and text", "choose a vision-language model")
    with contextlib.suppress(ValueError, ImportError):  # some image processors exist for torchvision only
        processor.image_processor = AutoImageProcessor.from_pretrained(weights.source, **weights.where, backend="pil")
    return processor


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, source: str) -> None:
    """Applies `as_in_file`, and lets a tokenizer without a pad token pad with EOS (masks mark the padding). Raises ConfigError
    for a tokenizer without character offsets, which are needed to locate targets."""
    as_in_file(tokenizer, source, name)
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(f"the tokenizer of {name} gives no offsets", "use weights with a tokenizer.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def image_token_ids(processor: Processor, config: PreTrainedConfig) -> list[int]:
    """Ids of the tokens that stand for images and videos, as processor, tokenizer and configuration name them."""
    ids = set()
    for holder in (processor, processor.tokenizer, config):
        for key in ("image_token_id", "video_token_id", "image_token_index", "video_token_index", "boi_token_id",
                    "eoi_token_id", "fake_image_token_id", "vision_start_token_id", "vision_end_token_id",
                    "start_image_token_id", "end_image_token_id"):  # fmt: skip
            token_id = getattr(holder, key, None)
            if isinstance(token_id, int):
                ids.add(token_id)
    return sorted(ids)
