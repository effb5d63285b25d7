"""What the adapters of captioners share (BLIP-2, InstructBLIP, BLIP): loading, tokens, scores, answers, image features.

The language model is run separately, with image states in place of placeholder tokens or as cross-attention states. So it
accepts precomputed states, any number of images, and prompts without images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from icltool.components.models.shared.adapter import EncodesImages, PromptAdapter
from icltool.components.models.shared.captioner_format import CaptionerFormat
from icltool.components.models.shared.decoder_hooks import logits_at
from icltool.components.models.shared.image_reader import ImageReader, Pixels, on_device
from icltool.components.models.shared.loading import check_image_processor, loading_errors, read_config, text_limit
from icltool.components.models.shared.options import TransformersOptions
from icltool.components.models.shared.processed import load_processor, prepare_tokenizer
from icltool.components.models.shared.scoring import (
    beam_options,
    decoded,
    end_tokens,
    plain_generation,
    target_scores,
)
from icltool.components.models.shared.tokens import (
    batches_by_length,
    check_length,
    check_prompts,
    in_batches,
    padded_rows,
    tokenize,
)
from icltool.components.models.shared.weights import Weights, fingerprint, weights_of
from icltool.contracts import AnswerBatch, Features, GenerationOptions, Prompt, TargetScore
from icltool.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from icltool.components.models.shared.loading import ModelClass, Network

#: An image counts as about this many characters of text when prompts are batched by length.
_IMAGE_LENGTH = 150
#: Images encoded at once, at most, if the prompts of a batch have many.
_MOST_IMAGES = 32


class CaptionerOptions(TransformersOptions):
    """Options of captioners."""

    image_size: int | None = Field(
        None,
        description="side of the images in pixels; position embeddings are resized to it. default: that of the weights",
    )


@dataclass(frozen=True)
class CaptionTokens:
    """`text` are the ids before the target (those of an encoder, if there is one), image placeholders included."""

    text: list[int]
    target: list[int]


class Captioner(EncodesImages, PromptAdapter):
    """An image captioner of transformers; subclasses define the inputs made of images and the prompt format.

    `padding_side` is where prompts that are scored are filled up: results do not depend on it. Answers are generated after
    padding on the left.
    """

    padding_side = "right"
    #: Placeholder tokens of one image, and their id (None: the language model attends to images from beside the text).
    placeholders = 0
    placeholder: int | None = None

    options_model = CaptionerOptions
    format: CaptionerFormat

    def __init__(self, options: CaptionerOptions) -> None:
        """Loads processor and weights. Raises ConfigError when weights are missing or do not fit."""
        weights = self._open(options)
        self._load(self.model_class(), weights, options)
        # transformers keeps some parts in float32 whatever the precision of the rest
        self._loaded_in = {name: p.dtype for name, p in self.model.named_parameters()}
        self._pad = int(self.tokenizer.pad_token_id)
        self.end_tokens = self._ends()
        plain_generation(self.language, self.end_tokens)

    @abstractmethod
    def model_class(self) -> ModelClass:
        """The class of transformers that holds the weights."""

    def _open(self, options: CaptionerOptions) -> Weights:
        self.name = name = options.name
        self.weights = weights = weights_of(options)
        self.source = weights.source
        with loading_errors(name, weights):
            self.processor = load_processor(weights)
            check_image_processor(name, self.processor.image_processor)
        self.tokenizer: PreTrainedTokenizerFast = self.processor.tokenizer
        prepare_tokenizer(self.tokenizer, name, weights.source)
        self.config = read_config(self.model_class(), name, weights)
        self.format = self._prompt_format()
        return weights

    @property
    def language_config(self) -> PreTrainedConfig:
        """The configuration of the language model."""
        text_config: PreTrainedConfig = self.config.text_config
        return text_config

    @property
    def token_limit(self) -> int | None:
        """See LimitsTokens."""
        return text_limit(self.language_config)

    @property
    @abstractmethod
    def language(self) -> Network:
        """The language model."""

    @abstractmethod
    def _prompt_format(self) -> CaptionerFormat:
        """The prompt format, which may depend on the tokenizer and the configuration."""

    def _encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """States [B, tokens, width] of images that do not depend on the prompt: those of the vision encoder."""
        states: torch.Tensor = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return states

    def _image_inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Further inputs for each image of these prompts, in order."""
        return {}

    @abstractmethod
    def _language_inputs(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The language model's inputs, without its targets."""

    @property
    def target_apart(self) -> bool:
        """See Model: whether an encoder reads the text."""
        return bool(self.language_config.is_encoder_decoder)

    def fingerprint(self) -> str:
        fine_tuned = "" if self.weights.fine_tuned is None else self.weights.fine_tuned.digest
        return fingerprint(self.source, self.precision, repr(self.format), str(self.image_size), fine_tuned)

    @property
    def image_size(self) -> int:
        """The side in pixels of the images that the vision encoder reads."""
        return int(self.model.config.vision_config.image_size)

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        """See CountsTokens."""
        counted = {
            with_target: iter(self._tokens([p for p in prompts if bool(p.target) is with_target], with_target))
            for with_target in (True, False)
        }
        each = (next(counted[bool(prompt.target)]) for prompt in prompts)
        return [len(tokens.text) + len(tokens.target) for tokens in each]

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        """See Model.score. Logits are computed at target positions only."""
        tokens = self._tokens(prompts, with_target=True)

        def compute(batch: Sequence[int]) -> list[TargetScore]:
            chosen = [tokens[i] for i in batch]
            inputs = self._with_images([prompts[i] for i in batch], features)
            logits = self.answer_logits(self._answers(chosen, inputs, self.padding_side))
            return target_scores(logits, [t.target for t in chosen])

        return in_batches(batches_by_length(_lengths(prompts), batch_size), compute)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        """See Model.generate. Placeholder tokens are never generated."""
        tokens = self._tokens(prompts, with_target=False, reserve=options.max_new_tokens)

        def compute(batch: Sequence[int]) -> list[str]:
            inputs = self._with_images([prompts[i] for i in batch], features)
            search = beam_options(self._pad, options, [prompts[i].draw for i in batch])
            new = self._search([tokens[i] for i in batch], inputs, search)
            return decoded(self.tokenizer, new)

        return in_batches(batches_by_length(_lengths(prompts), batch_size), compute)

    def image_reader(self) -> ImageReader:
        """See PreparesImages."""
        return ImageReader(self.processor.image_processor)

    @torch.inference_mode()
    def encode_images(self, prepared: Sequence[Pixels]) -> list[torch.Tensor]:
        """See PreparesImages. One tensor [tokens, width] per image: its states before they depend on the prompt."""
        pixels = torch.stack([on_device(image, self.device) for image in prepared])
        with self.one_precision():
            return list(self._encode_pixels(pixels))

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        """See SupportsFineTuning."""
        inputs = dict(batch.inputs)
        target = {key: inputs.pop(key) for key in list(inputs) if key.startswith("decoder_")}
        with self.one_precision():
            return logits_at(self.language, {**self._language_inputs(inputs), **target}, batch.rows, batch.columns)

    @contextmanager
    def one_precision(self) -> Iterator[None]:
        """Autocast, if training changed the precision of parts of the model and autocast is not already active."""
        if torch.is_autocast_enabled(self.device.type):
            yield
            return
        parameters = self.model.named_parameters()
        half = {self._loaded_in[n] for n, p in parameters if p.dtype != self._loaded_in.get(n, p.dtype)} - {
            torch.float32
        }
        if not half:
            yield
            return
        with torch.autocast(self.device.type, half.pop()):
            yield

    def _ends(self) -> list[int]:
        """Ids that end an answer, including a decoder's line break."""
        ends = end_tokens(self.language, self.tokenizer)
        if self.format.separator.endswith("\n") and not self.target_apart:
            ends.append(int(self.tokenizer("a\n", add_special_tokens=False)["input_ids"][-1]))
        return sorted(set(ends))

    def _suppressed(self) -> list[int]:
        """Ids that no answer contains."""
        return [] if self.placeholder is None else [self.placeholder]

    def _search(
        self, tokens: Sequence[CaptionTokens], inputs: Mapping[str, torch.Tensor], search: dict[str, Any]
    ) -> Any:
        """The output of the language model's `generate`, with the prompts cut off its ids."""
        options = dict(search)
        if suppressed := self._suppressed():
            options["suppress_tokens"] = suppressed
        if self.target_apart:
            options["decoder_start_token_id"] = self._decoder_start()
        batch = self._answers([replace(t, target=[]) for t in tokens], inputs, "left")
        encoder_inputs = {k: v for k, v in batch.inputs.items() if not k.startswith("decoder_")}
        with self.one_precision():
            language_inputs = self._language_inputs(encoder_inputs)
            language_inputs.pop("position_ids", None)  # `generate` computes them from the mask
            output = self.language.generate(**language_inputs, **options)
        # given embeddings (BLIP-2, InstructBLIP), transformers returns the answer alone and its repetition penalty counts
        # that alone; given ids (BLIP), both include the prompt. Newer releases of Blip2ForConditionalGeneration pass ids
        # beside embeddings, which penalises the words of demonstrations; those of the published runs did not
        cut = 1 if self.target_apart else language_inputs["input_ids"].shape[1] if "input_ids" in language_inputs else 0
        if isinstance(output, torch.Tensor):
            return output[:, cut:]
        output.sequences = output.sequences[:, cut:]
        return output

    def _decoder_start(self) -> int:
        return int(self.language.config.decoder_start_token_id)

    def _tokens(
        self,
        prompts: Sequence[Prompt],
        with_target: bool,
        reserve: int = 0,
        answers: Sequence[Sequence[int]] | None = None,
        most: int | None = None,
    ) -> list[CaptionTokens]:
        """The prompts' ids; targets, or the `answers` in their place, are cut after `most`.

        Raises ValueError for an empty text or target, DataError for a prompt that is too long or whose placeholders do not
        match its images: transformers would silently leave images out.
        """
        check_prompts(prompts, with_target and answers is None)
        apart = self.target_apart or answers is not None
        whole = [self._expanded(p) for p in prompts]
        tokenized = tokenize(self.tokenizer, whole, with_target and not apart)
        tokens_by_prompt = [CaptionTokens(t.ids[: t.target_start], t.ids[t.target_start :]) for t in tokenized]
        if answers is not None:
            tokens_by_prompt = [
                CaptionTokens(t.text, [int(i) for i in a]) for t, a in zip(tokens_by_prompt, answers, strict=True)
            ]
        elif with_target and apart and prompts:
            targets = self.tokenizer([p.target for p in prompts], add_special_tokens=False)["input_ids"]
            tokens_by_prompt = [
                CaptionTokens(t.text, list(ids)) for t, ids in zip(tokens_by_prompt, targets, strict=True)
            ]
        tokens_by_prompt = [replace(t, target=self._cut(t.target, most)) for t in tokens_by_prompt]
        limit = self.token_limit
        for prompt, tokens in zip(prompts, tokens_by_prompt, strict=True):
            self._check_placeholders(prompt, tokens)
            check_length(len(tokens.text) + len(tokens.target) * (not self.target_apart) + reserve, limit)
        return tokens_by_prompt

    def _cut(self, target: list[int], most: int | None) -> list[int]:
        """At most `most` tokens. In encoder-decoder models the end token is kept, as the tokenizer keeps it in truncation."""
        if most is None or len(target) <= most:
            return target
        ended = self.target_apart and most > 1 and target[-1] in self.end_tokens
        return [*target[: most - 1], target[-1]] if ended else target[:most]

    def _expanded(self, prompt: Prompt) -> Prompt:
        """The prompt with each image marker repeated once per placeholder token."""
        marker = self.format.image
        return replace(prompt, text=prompt.text.replace(marker, marker * self.placeholders)) if marker else prompt

    def _check_placeholders(self, prompt: Prompt, tokens: CaptionTokens) -> None:
        needed = len(prompt.images) * self.placeholders
        count = 0 if self.placeholder is None else tokens.text.count(self.placeholder)
        if count != needed:
            raise DataError(
                f"a prompt has {count} placeholder tokens for {len(prompt.images)} images, which need {needed}: "
                f"{prompt.text[:80]!r}",
                f"write {self.format.image!r} once for each image",
            )
        most = getattr(self, "images_per_prompt", None)
        if most is not None and len(prompt.images) != most:
            raise DataError(f"{self.name} reads {most} image per prompt, not {len(prompt.images)}")

    def _image_states(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """States of the images, [images, tokens, width]; "images" are the indices into "pixel_values" of each row."""
        if "image_states" in inputs:
            ready: torch.Tensor = inputs["image_states"]
            return ready
        states = self._encode_pixels(inputs["pixel_values"])
        return states[inputs["images"]] if "images" in inputs else states

    def _with_images(self, prompts: Sequence[Prompt], features: Features) -> dict[str, torch.Tensor]:
        """The image part of the model's inputs; each image is encoded once."""
        paths = list(dict.fromkeys(path for p in prompts for path in p.images))
        if not paths:
            return {}
        known = features if features is not None else {}
        absent = [path for path in paths if path not in known]
        states = {path: known[path] for path in paths if path in known}
        states.update(zip(absent, self.image_features(absent, _MOST_IMAGES), strict=True))
        stacked = torch.stack([states[path] for p in prompts for path in p.images])
        return {"image_states": stacked, **self._image_inputs(prompts)}

    def _answers(self, tokens: Sequence[CaptionTokens], inputs: Mapping[str, torch.Tensor], side: str) -> AnswerBatch:
        """Padded rows of ids, with the positions that predict the targets' tokens."""
        rows = [t.text if self.target_apart else t.text + t.target for t in tokens]
        model_inputs = {**self._padded(rows, side), **inputs}
        width = int(model_inputs["input_ids"].shape[1])
        if self.target_apart:
            starts = [0] * len(tokens)
            decoder_rows = [[self._decoder_start(), *t.target][: max(1, len(t.target))] for t in tokens]
            decoder = self._padded(decoder_rows, "right")
            model_inputs["decoder_input_ids"] = decoder["input_ids"]
            model_inputs["decoder_attention_mask"] = decoder["attention_mask"]
        else:
            shift = [width - len(row) if side == "left" else 0 for row in rows]
            starts = [len(t.text) - 1 + s for t, s in zip(tokens, shift, strict=True)]
        at = [(b, starts[b] + k) for b, t in enumerate(tokens) for k in range(len(t.target))]
        place = torch.tensor(at, dtype=torch.long, device=self.device).reshape(-1, 2)
        flat = torch.tensor([i for t in tokens for i in t.target], dtype=torch.long, device=self.device)
        return AnswerBatch(model_inputs, place[:, 0], place[:, 1], flat, torch.tensor(starts, device=self.device))

    def _padded(self, rows: Sequence[Sequence[int]], side: str) -> dict[str, torch.Tensor]:
        padded = padded_rows(rows, self._pad, side)
        return {"input_ids": padded.ids.to(self.device), "attention_mask": padded.mask.to(self.device)}


def opening(tokenizer: PreTrainedTokenizerBase, marker: str, start: str) -> str:
    """`start`, followed by a blank if marker and text then get the tokens of the published processors: placeholder ids before
    those of the text, tokenized separately."""
    text = "a photo of"
    alone = tokenizer(text, add_special_tokens=False)["input_ids"]
    for blank in ("", " "):
        ids = tokenizer(marker + start + blank + text, add_special_tokens=False)["input_ids"]
        if ids[1 + bool(start) :] == alone:
            return start + blank
    return start


def _lengths(prompts: Sequence[Prompt]) -> list[int]:
    return [len(p.images) * _IMAGE_LENGTH + len(p.text) for p in prompts]
