"""Images of chat models encoded once and shown in any number of prompts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from icltool.components.models.shared.images import read_image
from icltool.components.models.shared.processed import ModelInputs, image_faults
from icltool.contracts import Prompt

if TYPE_CHECKING:
    from transformers import BatchEncoding

    from icltool.components.models.shared.loading import Network
    from icltool.components.models.shared.processed import Processor, RecordingTokenizer

#: Architectures whose language model reads nothing of an image but `pooler_output` of its encoder, which is the same in
#: every prompt. Not among them: LLaVA-OneVision (tiles a single image, but not several) and Qwen3-VL (adds deeper layers of
#: its encoder within the language model).
REUSABLE = frozenset({"gemma3", "idefics3", "internvl", "qwen2_5_vl", "qwen2_vl", "smolvlm"})

_REMEMBERED = 4096  # images whose texts are remembered; the text of a large image has some thousand characters
_TYPES = ("mm_token_type_ids", "token_type_ids")
_FOR_ENCODER = ("pixel_values", "pixel_attention_mask")


@dataclass(frozen=True)
class ProcessedImage:
    """The processor's output for one image besides pixels: the `text` that replaces its marker, and `extras`, further inputs
    of the language model (Qwen's grids)."""

    text: str
    extras: dict[str, torch.Tensor]


class ChatImages:
    """Encodes images of a ChatModel, one at a time, and prepares inputs for prompts with them.

    `processor`, `model` and `recorder` (the processor's tokenizer) are the adapter's, `marker` its token for one image.
    """

    def __init__(self, processor: Processor, model: Network, recorder: RecordingTokenizer, marker: str) -> None:
        self._processor, self._model, self._recorder, self._marker = processor, model, recorder, marker
        self._types_key: str | None = None
        self._processed: dict[str, ProcessedImage] = {}

    def encode(self, path: str, on_device: Callable[[Mapping[str, torch.Tensor]], ModelInputs]) -> torch.Tensor:
        """The states of the image that the language model attends to: [tokens, width], or [tiles, tokens, width]."""
        inputs = on_device(self._read(path))
        takes = inspect.signature(self._model.get_image_features).parameters
        arguments = {key: value for key, value in inputs.items() if key in takes}
        states = self._model.get_image_features(**arguments, return_dict=True).pooler_output
        return states if isinstance(states, torch.Tensor) else torch.cat(list(states))

    def inputs(
        self, texts: Sequence[str], prompts: Sequence[Prompt], features: Mapping[str, torch.Tensor]
    ) -> ModelInputs:
        """The model's inputs for one batch, with ready features in place of pixels."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        images_by_prompt = [[self.processed(path) for path in p.images] for p in prompts]
        encoded = self.tokens(texts, prompts, return_tensors="pt")
        inputs: ModelInputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        if self._types_key is not None:
            types = self._processor.create_mm_token_type_ids(encoded["input_ids"].tolist())
            inputs[self._types_key] = torch.tensor(types)
        images = [image for row in images_by_prompt for image in row]
        for key in images[0].extras:
            inputs[key] = torch.cat([image.extras[key] for image in images])
        states: Any = [features[path] for p in prompts for path in p.images]
        if states[0].ndim == 3:
            states = torch.cat(states)
        inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=states)}
        return inputs

    def tokens(self, texts: Sequence[str], prompts: Sequence[Prompt], **options: str) -> BatchEncoding:
        """Ids and masks of the texts with those of their images, by the recorder."""
        images_by_prompt = [[self.processed(path) for path in p.images] for p in prompts]
        return self._recorder(
            [self._with_image_tokens(t, s) for t, s in zip(texts, images_by_prompt, strict=True)], **options
        )

    def processed(self, path: str) -> ProcessedImage:
        """The processor's output for the image, which is read only if the output is not remembered."""
        if path not in self._processed:
            self._read(path)
        return self._processed[path]

    def _read(self, path: str) -> ModelInputs:
        """The processor's inputs for the image alone; remembers its text and extras."""
        image = read_image(path)
        with image_faults(self._model.config.model_type, self._processor, {path: image}):
            inputs = dict(self._processor(text=[self._marker], images=[[image]], return_tensors="pt"))
        self._types_key = next((key for key in _TYPES if key in inputs), None)
        known = {"input_ids", "attention_mask", *_FOR_ENCODER, *_TYPES}
        extras = {k: v for k, v in inputs.items() if k not in known and isinstance(v, torch.Tensor)}
        if len(self._processed) >= _REMEMBERED:
            self._processed.clear()
        self._processed[path] = ProcessedImage(self._recorder.texts[0], extras)
        return inputs

    def _with_image_tokens(self, text: str, images: Sequence[ProcessedImage]) -> str:
        first, *rest = text.split(self._marker)
        return first + "".join(image.text + part for image, part in zip(images, rest, strict=True))
