"""CLIP models loaded with open_clip: OpenAI's, LAION's, and the embedded world's."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import open_clip
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from icltool.components.encoders.locating import WEIGHTS, is_hub_id, locate
from icltool.components.encoders.samples import SAMPLE_TEXT
from icltool.components.models.shared.images import read_image
from icltool.components.models.shared.loading import check_sizes, is_fault
from icltool.components.models.shared.weights import check_files, fingerprint, packaged_weights
from icltool.contracts import FloatArray, Options, read_whole
from icltool.errors import ConfigError, IclError, IclWarning, closest


class OpenClipOptions(Options):
    """Which weights to load, and the device to run on."""

    name: str = Field("open-clip", description="name of the encoder in messages and file names")
    packaged: str | None = Field(None, description="name of weights that are part of icltool")
    architecture: str | None = Field(None, description="architecture of open_clip")
    pretrained: str | None = Field(None, description="tag of open_clip for pretrained weights, or a weights file")
    path: str | None = Field(
        None,
        description="folder with open_clip_config.json and weights, or OWNER/NAME to download them from the Hugging Face hub; "
        "with architecture, also a weights file",
    )
    download: bool = Field(False, description="download the weights of the tag if they are not on this machine")
    device: str = Field("auto", description="device to run on: cpu, cuda, cuda:1 …; auto uses a GPU if there is one")
    weights: bool = Field(True, description="load weights; false leaves the towers untrained")


class OpenClipEncoder:
    """An open_clip model's two towers with their projections: both return float32 [n, D] in a common space.

    A TrainableEncoder.
    """

    options_model = OpenClipOptions

    def __init__(self, options: OpenClipOptions) -> None:
        """Raises ConfigError if the weights are not on this machine and `path` names no source."""
        name, path = options.name, options.path
        self.name = name
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(auto if options.device == "auto" else options.device)
        folder = _place(options)
        self._folder = folder if folder is not None and Path(folder).is_dir() else None
        settings: dict[str, object] = {}
        if self._folder is not None:
            _check_folder(name, Path(self._folder), options.weights)
            self._identifier, source = f"local-dir:{self._folder}", None
            self._identity = fingerprint(self._folder)
        else:
            self._identifier, source = _architecture(options, folder), _source(options)
            settings |= _preprocessing(name, self._identifier, None if path else options.pretrained)
            self._identity = f"{self._identifier}-{options.pretrained or Path(str(path)).name}"
        if not options.weights:
            self._identity += "-untrained"
            settings |= {"load_weights": False, "pretrained_text": False}
        try:
            if self._folder is not None:
                described = json.loads(read_whole(Path(self._folder) / "open_clip_config.json"))
                check_sizes(f"encoder {name!r}", described, "open_clip_config.json")
            with _without_log():
                model, _, self._transform = open_clip.create_model_and_transforms(
                    self._identifier, pretrained=source, **settings
                )
                self._tokenizer = open_clip.get_tokenizer(self._identifier)
            # wrong settings show only when an image and a text are processed
            self._transform(Image.new("RGB", (64, 48)))
            sample = self._tokenizer([SAMPLE_TEXT])
            if self._folder is not None:
                with torch.inference_mode():
                    model.eval().encode_text(sample)
        except BaseException as error:  # damaged files fail in whatever reads them first
            if isinstance(error, IclError) or not is_fault(error):
                raise
            reason = " ".join((str(error) or type(error).__name__).split())
            raise ConfigError(
                f"encoder {name!r} cannot be loaded from {folder or source}: {reason:.300}",
                "check that the folder is complete and contains an open_clip encoder",
            ) from error
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._path = str(Path(path).absolute()) if path is not None and Path(path).exists() else path
        self.dim = int(str(self._configuration()["embed_dim"]))

    def fingerprint(self) -> str:
        return self._identity

    @torch.inference_mode()
    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        if not paths:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.asarray(self._model.encode_image(_pixels(self._transform, paths).to(self.device)).float().cpu())

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        tokens = _tokens(self._tokenizer, texts)
        size = getattr(self._model, "vocab_size", None)
        if size is not None and int(tokens.max()) >= size:  # on a GPU this would destroy the CUDA context
            raise ConfigError(
                f"encoder {self.name!r}: its tokenizer returned token {int(tokens.max())}, but its model has {size} tokens",
                f"tokenizer and model do not match: check the files in {self._path or self._identifier}",
            )
        return np.asarray(self._model.encode_text(tokens.to(self.device)).float().cpu())

    def tower(self, modality: str) -> nn.Module:
        """See TrainableEncoder."""
        if modality == "image":
            image_tower: nn.Module = self._model.visual
            return image_tower
        text_tower: nn.Module = self._model.text if hasattr(self._model, "text") else TextTower(self._model)
        return text_tower

    def preprocessor(self, modality: str) -> Callable[[Sequence[str]], Tensor]:
        """See TrainableEncoder: float32 [n, 3, H, W] of images, int64 [n, T] of texts."""
        # made of parts, so that it does not keep the weights alive
        return partial(_pixels, self._transform) if modality == "image" else partial(_tokens, self._tokenizer)

    def architecture(self) -> dict[str, object]:
        """open_clip's configuration of the model and of its preprocessing, and the tokens of a sample text."""
        tokens = _tokens(self._tokenizer, [SAMPLE_TEXT])[0].tolist()
        description = {
            "model": self._configuration(),
            "preprocessing": open_clip.get_model_preprocess_cfg(self._model),
            "sample": tokens,
        }
        plain: dict[str, object] = json.loads(json.dumps(description))  # tuples become lists, as they do in a file
        return plain

    def build_options(self) -> dict[str, object]:
        """See TrainableEncoder. A folder named by the user is needed again for its configuration and tokenizer."""
        return {"weights": False} if self._path is None else {"weights": False, "path": self._path}

    def _configuration(self) -> dict[str, object]:
        """open_clip's configuration of the model."""
        if self._folder is None:
            built_in: dict[str, object] = open_clip.get_model_config(self._identifier)
            return built_in
        text = (Path(self._folder) / "open_clip_config.json").read_text(encoding="utf-8")
        model_config: dict[str, object] = json.loads(text)["model_cfg"]
        return model_config


def _place(options: OpenClipOptions) -> str | None:
    """The folder or file of the weights that the options name; None for those of a tag. ConfigError if it does not exist."""
    if options.path is None:
        return str(packaged_weights(options.packaged)) if options.packaged else None
    if is_hub_id(options.path):
        return str(locate(options.name, None, options.path))
    if not Path(options.path).exists():
        raise ConfigError(
            f"encoder {options.name!r}: {options.path} does not exist",
            "give a folder with open_clip_config.json, or a weights file",
        )
    return options.path


def _check_folder(name: str, folder: Path, weights: bool) -> None:
    """Raises ConfigError for a folder without configuration, or without weights if these are to be read: open_clip would
    continue with random ones."""
    if weights and not any(p.suffix in WEIGHTS for p in folder.iterdir()):
        raise ConfigError(
            f"encoder {name!r}: {folder} contains no weights", f"add a weights file ({', '.join(WEIGHTS)})"
        )
    check_files(folder)


def _architecture(options: OpenClipOptions, file: str | None) -> str:
    if options.architecture is not None:
        return options.architecture
    raise ConfigError(
        f"encoder {options.name!r}: " + ("no weights are named" if file is None else f"{file!r} is not a folder"),
        "give --encoder-path DIR with open_clip_config.json, or --encoder-path ARCHITECTURE/TAG of open_clip",
    )


def _source(options: OpenClipOptions) -> str | None:
    """The weights file of an architecture; None for untrained towers."""
    assert options.architecture is not None
    if not options.weights:
        return None
    return options.path or _cached_weights(options.name, options.architecture, options.pretrained, options.download)


class TextTower(nn.Module):
    """The text half of an open_clip CLIP model whose text parts are attributes of the model: int64 [n, T] -> [n, D]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for part in ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection"):
            setattr(self, part, getattr(model, part))
        self.register_buffer("attn_mask", cast("Tensor | None", model.attn_mask), persistent=False)
        self.text_pool_type = model.text_pool_type
        self.text_eos_id = getattr(model, "text_eos_id", None)

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = open_clip.CLIP.encode_text(self, tokens)  # uses only these parts
        return features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        setattr(self.transformer, "grad_checkpointing", enable)  # noqa: B010 (modules are typed without it)


def _pixels(transform: Callable[..., Tensor], paths: Sequence[str]) -> Tensor:
    return torch.stack([transform(read_image(path)) for path in paths])


def _tokens(tokenizer: Callable[..., Tensor], texts: Sequence[str]) -> Tensor:
    return tokenizer(list(texts))


@contextmanager
def _without_log() -> Iterator[None]:
    """open_clip logs an error, by the root logger, before it raises one."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


def _cached_weights(name: str, architecture: str, pretrained: str | None, download: bool) -> str:
    """The weights file of an open_clip tag in the local cache. Raises ConfigError if it is not there, with `download` if it
    cannot be fetched either, and for a tag that the architecture does not have."""
    from huggingface_hub import try_to_load_from_cache

    if not pretrained:
        raise ConfigError(f"encoder {name!r} names no weights", "give pretrained=TAG or path=FILE")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if architecture in open_clip.list_models() and pretrained.replace("-", "_") not in [
        t.replace("-", "_") for t in tags
    ]:
        close = closest(pretrained, tags)
        raise ConfigError(
            f"encoder {name!r}: open_clip has no weights {pretrained!r} of {architecture}",
            (f"did you mean {close!r}? " if close else "") + f"known: {', '.join(tags) or 'none'}",
        )
    known = open_clip.get_pretrained_cfg(architecture, pretrained)
    owner, _, place = str(known.get("hf_hub", "")).partition("/")
    repository, _, own = place.partition("/")
    hub_id = f"{owner}/{repository}" if repository else ""
    for file in (own,) if own else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        file_path = try_to_load_from_cache(hub_id, file) if hub_id else None
        if isinstance(file_path, str):
            return file_path
    if download:
        return _downloaded(name, architecture, pretrained, known)
    raise ConfigError(
        f"weights {pretrained!r} of encoder {name!r} ({architecture}) are not on this machine",
        f"use --encoder-path {architecture}/{pretrained} to download them, or --encoder-path FILE for a local file",
    )


def _downloaded(name: str, architecture: str, pretrained: str, known: dict[str, object]) -> str:
    warnings.warn(f"downloading {architecture}/{pretrained}; this may take a while", IclWarning, stacklevel=3)
    try:
        with _without_log():
            return str(open_clip.download_pretrained(known))
    except Exception as error:  # of huggingface_hub or urllib
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"encoder {name!r}: {architecture}/{pretrained} cannot be downloaded: {reason:.200}",
            "check the connection, or give --encoder-path FILE for a local file",
        ) from error


def _preprocessing(name: str, architecture: str, pretrained: str | None) -> dict[str, object]:
    """The image preprocessing of a tag's weights, as options for open_clip, which does not know the tag because the weights
    are passed as a file.

    Raises ConfigError for an architecture that is not built in: open_clip could fetch another name from a hub.
    """
    if architecture not in open_clip.list_models():
        raise ConfigError(f"encoder {name!r}: open_clip has no architecture {architecture!r}")
    known = open_clip.get_pretrained_cfg(architecture, pretrained) if pretrained else {}
    keys = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation"}
    keys["resize_mode"] = "image_resize_mode"
    return {option: known[key] for key, option in keys.items() if known.get(key) is not None}
