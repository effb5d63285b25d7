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

#: Architectures whose language model reads of an image what its encoder makes of the image alone.
REUSABLE = frozenset(
    {"gemma3", "gemma4", "idefics3", "internvl", "llava_onevision", "mistral3", "qwen2_5_vl", "qwen2_vl", "qwen3_5",
     "qwen3_vl", "smolvlm"}
)  # fmt: skip

_REMEMBERED = 4096  # images whose texts are remembered; the text of a large image has some thousand characters
_TYPES = ("mm_token_type_ids", "token_type_ids")
_FOR_POSITIONS = ("image_grid_thw",)


@dataclass(frozen=True)
class ProcessedImage:
    """The processor's output for one image besides pixels: the `text` that replaces its marker, how many image `tokens` that
    has, and `extras`, further inputs of the language model (Qwen's grids)."""

    text: str
    tokens: int
    extras: dict[str, torch.Tensor]


class ChatImages:
    """Encodes images of a ChatModel, one at a time, and prepares inputs for prompts with them.

    `processor`, `model` and `recorder` (the processor's tokenizer) are the adapter's, `marker` its token for one image.
    """

    def __init__(self, processor: Processor, model: Network, recorder: RecordingTokenizer, marker: str) -> None:
        self._processor, self._model, self._recorder, self._marker = processor, model, recorder, marker
        image_token = getattr(model.config, "image_token_id", None)
        self._token = marker if image_token is None else str(recorder.convert_ids_to_tokens(image_token))
        self._types_key: str | None = None
        self._processed: dict[tuple[str, int], ProcessedImage] = {}

    def encode(self, path: str, on_device: Callable[[Mapping[str, torch.Tensor]], ModelInputs]) -> torch.Tensor:
        """The states of the image that the language model attends to: [tokens, width], or [tiles, tokens, width].

        Qwen3-VL adds states of inner layers of the encoder within the language model: they stand behind the others,
        [tokens, (1 + layers) * width].
        """
        return self._states(on_device(self._read(path)))

    def _states(self, inputs: ModelInputs) -> torch.Tensor:
        takes = inspect.signature(self._model.get_image_features).parameters
        arguments = {key: value for key, value in inputs.items() if key in takes}
        output = self._model.get_image_features(**arguments, return_dict=True)
        states = _joined(output.pooler_output)
        deeper = getattr(output, "deepstack_features", None) or ()
        return torch.cat([states, *map(_joined, deeper)], dim=-1) if len(deeper) else states

    def inputs(
        self, texts: Sequence[str], prompts: Sequence[Prompt], features: Mapping[str, torch.Tensor]
    ) -> ModelInputs:
        """The model's inputs for one batch, with ready features in place of pixels."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        images = [self.processed(path) for p in prompts for path in p.images]
        states: Any = [self._of_prompt(features[path], path, len(p.images)) for p in prompts for path in p.images]
        encoded = self.tokens(texts, prompts, return_tensors="pt")  # last: the recorder remembers these texts
        inputs: ModelInputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        if self._types_key is not None:
            types = self._processor.create_mm_token_type_ids(encoded["input_ids"].tolist())
            inputs[self._types_key] = torch.tensor(types)
        for key in images[0].extras:
            inputs[key] = torch.cat([image.extras[key] for image in images])
        if states[0].ndim == 3:
            states = torch.cat(states)
        output = BaseModelOutputWithPooling(pooler_output=states)
        inputs["mm_encoder_outputs"] = {"image": output}
        return inputs

    def tokens(self, texts: Sequence[str], prompts: Sequence[Prompt], **options: str) -> BatchEncoding:
        """Ids and masks of the texts with those of their images, by the recorder."""
        whole = [self._with_image_tokens(t, p.images) for t, p in zip(texts, prompts, strict=True)]
        return self._recorder(whole, **options)

    def rows(self, path: str, images: int) -> range:
        """The rows of the image's states that its tokens stand for, in a prompt of so many images."""
        return range(self.processed(path).tokens)

    def processed(self, path: str, copies: int = 1) -> ProcessedImage:
        """The processor's output for the image in a prompt of so many copies of it. The image is read only if the output is not
        remembered."""
        if (path, copies) not in self._processed:
            self._read(path, copies)
        return self._processed[path, copies]

    def _read(self, path: str, copies: int = 1) -> ModelInputs:
        """The processor's inputs for a prompt of copies of the image; remembers one's text and extras."""
        image = read_image(path)
        with image_faults(self._model.config.model_type, self._processor, {path: image}):
            inputs = dict(self._processor(text=[self._marker * copies], images=[[image] * copies], return_tensors="pt"))
        self._types_key = next((key for key in _TYPES if key in inputs), None)
        extras = {key: inputs[key] for key in _FOR_POSITIONS if key in inputs}
        if len(self._processed) >= _REMEMBERED:
            self._processed.clear()
        text = self._recorder.texts[0]
        text = text[: len(text) // copies]
        self._processed[path, copies] = ProcessedImage(text, text.count(self._token), extras)
        return inputs

    def _with_image_tokens(self, text: str, paths: Sequence[str]) -> str:
        first, *rest = text.split(self._marker)
        return first + "".join(self._text(path, len(paths)) + part for path, part in zip(paths, rest, strict=True))

    def _text(self, path: str, images: int) -> str:
        """What replaces the marker of this image in a prompt of so many images."""
        return self.processed(path).text

    def _of_prompt(self, states: torch.Tensor, path: str, images: int) -> torch.Tensor:
        """The image's states in a prompt of so many images."""
        return states


class TiledAlone(ChatImages):
    """LLaVA-OneVision: an image that stands alone in a prompt is cut into tiles, one of several is made a square. Its states
    are those of both, one after the other."""

    def encode(self, path: str, on_device: Callable[[Mapping[str, torch.Tensor]], ModelInputs]) -> torch.Tensor:
        alone, several = (self._states(on_device(self._read(path, copies))) for copies in (1, 2))
        return torch.cat([alone, several[: len(several) // 2]])

    def rows(self, path: str, images: int) -> range:
        tokens = self.processed(path).tokens
        return range(tokens) if images == 1 else range(tokens, tokens + self.processed(path, 2).tokens)

    def _text(self, path: str, images: int) -> str:
        return self.processed(path, min(images, 2)).text

    def _of_prompt(self, states: torch.Tensor, path: str, images: int) -> torch.Tensor:
        rows = self.rows(path, images)
        return states[rows.start : rows.stop]


class WithDeeperStates(ChatImages):
    """Qwen3-VL: the language model adds states of inner layers of the encoder, see `encode`."""

    def inputs(
        self, texts: Sequence[str], prompts: Sequence[Prompt], features: Mapping[str, torch.Tensor]
    ) -> ModelInputs:
        inputs = super().inputs(texts, prompts, features)
        output = inputs["mm_encoder_outputs"]["image"]
        width = self._model.config.text_config.hidden_size
        first, *deeper = zip(*(states.split(width, dim=-1) for states in output.pooler_output), strict=True)
        output.pooler_output, output.deepstack_features = list(first), [list(states) for states in deeper]
        return inputs


def chat_images(processor: Processor, model: Network, recorder: RecordingTokenizer, marker: str) -> ChatImages:
    """The images of a ChatModel with these parts."""
    kinds = {"llava_onevision": TiledAlone, "qwen3_vl": WithDeeperStates}
    return kinds.get(model.config.model_type, ChatImages)(processor, model, recorder, marker)


def _joined(states: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    return states if isinstance(states, torch.Tensor) else torch.cat(list(states))
