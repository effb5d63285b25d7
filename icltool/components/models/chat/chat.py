"""Any image-text-to-text model of transformers that has a chat template and accepts several images.

Idefics3, SmolVLM, Qwen2-VL and later, LLaVA-OneVision, InternVL, Gemma 3 and 4, Mistral 3 and similar models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from pydantic import Field

from icltool.components.models.chat.chat_format import ChatFormat, Style, chat_format, ended_by
from icltool.components.models.chat.chat_images import REUSABLE, chat_images
from icltool.components.models.chat.chat_prefix_cache import chat_prefix_cache
from icltool.components.models.shared.loading import MESSAGE
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.shared.processed import ModelInputs, ProcessedModel
from icltool.components.models.shared.weights import Weights, fingerprint
from icltool.contracts import Example, Features, Prompt, Task
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from icltool.components.models.shared.loading import ModelClass


#: Architectures whose tokens of an image depend on the other images of its batch (Emu3 encodes the padding that brings them to
#: one size). They get one prompt at a time.
IMAGES_MIX = frozenset({"emu3", "minicpmv4_6", "minicpmv4_7"})


class ChatOptions(RemoteCodeOptions):
    """Of models that hold a conversation."""

    style: Style = Field(
        "turns", description="write each demonstration as turns of the conversation, or all of them in one turn (flat)"
    )
    template_options: dict[str, Any] = Field(
        default_factory=dict, description="variables of the chat template; enable_thinking is false unless set here"
    )


class ChatModel(ProcessedModel):
    """The adapter: prompts are written by the model's chat template, images prepared by its processor.

    With `style` "turns" a demonstration is a user turn (image and request) and an assistant turn (label); with "flat" one
    user turn holds them all. Models of the architectures in REUSABLE also have `image_features`: each image is encoded once
    (SupportsImageCache). Those in WITH_PREFIX_CACHE also reuse keys and values of a common prefix (SupportsPrefixCache,
    GeneratesFromPrefix).
    """

    options_model = ChatOptions
    format: ChatFormat

    def __init__(self, options: ChatOptions) -> None:
        """Loads processor and weights. Raises ConfigError if weights are missing or do not fit, or if the model does not
        support conversations about several images."""
        super().__init__(options)
        self.format = ended_by(self.format, self.tokenizer, self.end_tokens)
        self._images = chat_images(self.processor, self.model, self.recorder, self.format.marker)
        if self.model.config.model_type in REUSABLE and "mm_encoder_outputs" in self._forward:
            self.image_features = self._image_features
            cache = chat_prefix_cache(self, self._images)
            if cache is not None:
                self._use_prefix_cache(cache)

    def model_class(self) -> ModelClass:
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText

    def _open(self, options: ChatOptions) -> Weights:
        own = options.prompt.style if options.prompt is not None and "style" not in options.model_fields_set else None
        self._style, self._file = own or options.style, options.prompt
        self._template_options = options.template_options
        return super()._open(options)

    def _batches(self, prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
        alone = self.config.model_type in IMAGES_MIX
        return super()._batches(prompts, 1 if alone else batch_size)

    def messages(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> list[dict[str, Any]]:
        """See HoldsConversations."""
        return [dict(message) for message in self.format.messages(task, demonstrations, query)]

    @property
    def template_options(self) -> Mapping[str, object]:
        """See HasTemplateOptions."""
        return self.format.template_options

    def fingerprint(self) -> str:
        return fingerprint(self.source, self.precision, self.format.description())

    def _prompt_identity(self) -> object:
        return self.format.description()

    @torch.inference_mode()
    def _image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
        """See SupportsImageCache. Images differ in size, so each is encoded separately."""
        return [self._images.encode(path, self._on_device) for path in paths]

    def _processed(self, texts: list[str], prompts: Sequence[Prompt], features: Features) -> ModelInputs:
        if features is None or not any(p.images for p in prompts):
            return super()._processed(texts, prompts, features)
        return self._on_device(self._images.inputs(texts, prompts, features))

    def _check_processor(self) -> None:
        """Demonstrations need several images in one prompt, so this is checked before the weights are loaded."""
        self.format = chat_format(
            self.processor, self.tokenizer, self.name, self._style, self._template_options, self._file
        )
        example = Example(0, "image", 0, "text", "label", ("label",), "question")
        prompt = self.format.prompt("caption", [example], example)
        if getattr(self.processor.image_processor, "vision_input_type", None) == "thumb+tile":
            # PerceptionLM's processor cannot put images with different numbers of tiles into one prompt
            self.processor.image_processor.vision_input_type = "vanilla"
        images = [Image.new("RGB", (224, 224), "white"), Image.new("RGB", (448, 112), "gray")]
        try:
            self.processor(text=[prompt.text], images=[images], return_tensors="pt")
        except Exception as error:  # of transformers' processors, in many classes
            message = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"the processor of {self.name} cannot take two images in one prompt: {message[:MESSAGE]}",
                "demonstrations need several images: choose another model",
            ) from error
