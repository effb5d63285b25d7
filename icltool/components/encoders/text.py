"""Encoders of texts: the models of sentence-transformers, and any text encoder of transformers.

The folder's modules.json is read here rather than by the package sentence-transformers, which would bring scikit-learn and
SciPy, 170 MB, for a pooling layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icltool.components.encoders.loading import check_tokens, encoder_errors, first_use, identity_of, load, read_config
from icltool.components.encoders.locating import locate
from icltool.components.encoders.options import TextOptions
from icltool.components.encoders.samples import SAMPLE_TEXT
from icltool.components.encoders.sentence_modules import SentenceModules, pooled, read_modules
from icltool.contracts import FloatArray
from icltool.errors import ConfigError


class TextEncoder:
    """A text model of transformers with the modules of its folder, as float32 [n, D]. It encodes no images."""

    options_model = TextOptions
    modalities = frozenset({"text"})

    def __init__(self, options: TextOptions) -> None:
        """Raises ConfigError if the weights are not on this machine, damaged, not of such an encoder, or with modules that are
        not supported."""
        from transformers import AutoTokenizer

        self.name = options.name
        folder = locate(options.name, options.hub_id, options.path)
        self._modules = modules = read_modules(options.name, folder)
        self._folder = modules.transformer
        config = read_config(self.name, self._folder)
        loaded = load(_model_class(config), self._folder, options)
        self._model, self._device = loaded.model, loaded.device
        if getattr(self._model, "main_input_name", "input_ids") != "input_ids":
            raise ConfigError(
                f"encoder {self.name!r}: {self._folder} contains a {config.model_type} model, which does not encode texts",
                "choose a text encoder such as those of sentence-transformers",
            )
        with encoder_errors(self.name, self._folder):
            self._tokenizer = AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True)
        self._pooling = modules.pooling if options.pooling == "auto" else (options.pooling,)
        self._normalize = modules.normalize if options.normalize is None else options.normalize
        self._prefix = _prefix(options, modules)
        self._max_length = options.max_length or min(modules.max_length or self._limit(), self._limit())
        # tokens of the prefix that are not pooled
        self._skipped = 0 if modules.include_prompt else self._prefix_tokens()
        settings = {
            "pooling": self._pooling,
            "normalize": self._normalize,
            "prefix": self._prefix,
            "max_length": self._max_length,
            "dtype": options.dtype,
        }
        self._identity = identity_of(folder, settings)
        for layer in modules.layers:
            layer.to(self._device).eval().requires_grad_(False)
        self.dim = first_use(self.name, folder, lambda: self._features([SAMPLE_TEXT]))

    def fingerprint(self) -> str:
        return self._identity

    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        """Raises ConfigError."""
        raise ConfigError(
            f"encoder {self.name!r} encodes texts only", "for images choose another encoder, such as dinov2 or vit-l-14"
        )

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.asarray(self._features(texts).cpu())

    def _features(self, texts: Sequence[str]) -> Tensor:
        """float32 [n, D]."""
        whole = [self._prefix + text for text in texts]
        if self._modules.lower_case:
            whole = [text.lower() for text in whole]
        tokens = self._tokenizer(whole, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt")
        check_tokens(self.name, self._model, tokens["input_ids"], self._folder)
        inputs = {key: value.to(self._device) for key, value in tokens.items()}
        states: Tensor = self._model(**inputs).last_hidden_state
        vectors = pooled(states.float(), inputs["attention_mask"], self._pooling, self._skipped)
        for layer in self._modules.layers:
            vectors = layer(vectors)
        return torch.nn.functional.normalize(vectors, dim=-1) if self._normalize else vectors

    def _limit(self) -> int:
        """The number of tokens that tokenizer and model take."""
        positions = getattr(self._model.config, "max_position_embeddings", None)
        offset = next(
            (
                int(module.padding_idx) + 1  # RoBERTa counts positions from there
                for name, module in self._model.named_modules()
                if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
            ),
            0,
        )
        limits = [int(self._tokenizer.model_max_length)]
        return min(limits + ([] if positions is None else [int(positions) - offset]))

    def _prefix_tokens(self) -> int:
        """The number of tokens at the start of a text that belong to the prefix; 0 without one."""
        if not self._prefix:
            return 0
        ids = list(self._tokenizer(self._prefix)["input_ids"])
        while ids and ids[-1] in self._tokenizer.all_special_ids:
            ids.pop()
        return len(ids)


def _model_class(config: Any) -> Any:
    """The auto class that reads the encoder half alone, if the architecture has two."""
    from transformers import AutoModel, AutoModelForTextEncoding

    return AutoModelForTextEncoding if type(config) in AutoModelForTextEncoding._model_mapping else AutoModel


def _prefix(options: TextOptions, modules: SentenceModules) -> str:
    """The text in front of each text. ConfigError for a prompt that the model does not have."""
    if options.prompt is None:
        return modules.default_prompt if options.prefix is None else options.prefix
    if options.prefix is not None:
        raise ConfigError(f"encoder {options.name!r}: prefix and prompt exclude each other", "use one of them")
    if options.prompt not in modules.prompts:
        known = f"its prompts: {', '.join(modules.prompts)}" if modules.prompts else "it has none: use prefix"
        raise ConfigError(f"encoder {options.name!r} has no prompt {options.prompt!r}", known)
    return modules.prompts[options.prompt]
