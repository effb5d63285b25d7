"""Loading encoders of transformers, and what their classes share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from icltool.components.encoders.locating import WEIGHTS
from icltool.components.encoders.options import EncoderOptions
from icltool.components.models.shared.images import cannot_take, read_image
from icltool.components.models.shared.loading import check_sizes, is_fault, loading_errors
from icltool.components.models.shared.options import DTYPES
from icltool.components.models.shared.weights import Weights, fingerprint
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: The weights of a pooling layer, which checkpoints of encoders often lack.
_POOLER = "pooler."
#: File types besides weights and JSON that decide what an encoder computes.
_VOCABULARY = (".txt", ".model")


@dataclass(frozen=True)
class Loaded:
    """`model` in evaluation mode, without gradients, on `device`; `pooler` tells whether all weights of its pooling layer were
    in the files."""

    model: Any
    device: torch.device
    pooler: bool


def read_config(name: str, folder: Path) -> PreTrainedConfig:
    """The configuration in `folder`. ConfigError if it is damaged or of an architecture that transformers does not know."""
    from transformers import AutoConfig

    with encoder_errors(name, folder):
        config: PreTrainedConfig = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        check_sizes(f"encoder {name!r}", config.to_dict())
    return config


def load(model_class: Any, folder: Path, options: EncoderOptions) -> Loaded:
    """Loads a class of transformers from `folder`.

    Raises ConfigError if files are missing, damaged or of another architecture: transformers would fill missing weights with
    random numbers.
    """
    name, device = options.name, device_of(options.device)
    if not any(path.suffix in WEIGHTS for path in folder.iterdir()):
        raise ConfigError(f"encoder {name!r}: {folder} contains no weights", f"add a file of {', '.join(WEIGHTS)}")
    with encoder_errors(name, folder):
        model, report = model_class.from_pretrained(
            str(folder),
            local_files_only=True,
            dtype=DTYPES[options.dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    missing = sorted(map(str, report.get("missing_keys", ())))
    other = sorted(str(entry[0]) for entry in report.get("mismatched_keys", ()))
    unusable = [key for key in missing if not key.startswith(_POOLER)] + other
    if unusable:
        raise ConfigError(
            f"encoder {name!r} cannot be loaded from {folder}: {len(unusable)} of its weights are missing there or do not have "
            f"the size in its config.json, including {unusable[0]}",
            "the files are incomplete, or for another architecture",
        )
    return Loaded(model.to(device).eval().requires_grad_(False), device, pooler=not missing)


def encoder_errors(name: str, folder: Path) -> loading_errors:
    """A context that turns what transformers raises for missing, damaged or foreign files into a ConfigError."""
    return loading_errors(repr(name), Weights(str(folder), local_only=True), "encoder")


def device_of(device: str) -> torch.device:
    """The device that an option names. Raises ConfigError for an unknown device, or a missing GPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}", "use cpu, cuda, cuda:1 …") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device} is not available: this machine has no GPU", "use --device cpu")
    return target


def identity_of(folder: Path, settings: Mapping[str, object]) -> str:
    """12 hex characters that change with the files of an encoder, those in folders below included, and with `settings`."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in _VOCABULARY and file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    parts = [fingerprint(str(part)) for part in sorted(folder.iterdir()) if part.is_dir()]
    return fingerprint(str(folder), digest.hexdigest(), *parts, *(f"{k}={settings[k]}" for k in sorted(settings)))


def pixels(
    name: str, processor: Any, paths: Sequence[str], place: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The inputs of an image tower. Raises DataError naming an image that cannot be read or processed."""
    images = [read_image(path) for path in paths]
    try:
        inputs = processor(images=images, return_tensors="pt")
    except Exception as error:
        for path, image in zip(paths, images, strict=True):
            try:
                processor(images=[image], return_tensors="pt")
            except Exception as fault:
                raise cannot_take(path, image, fault, f"encoder {name!r}") from fault
        raise ConfigError(
            f"encoder {name!r}: its image processor fails: {' '.join(str(error).split()):.200}",
            "check preprocessor_config.json",
        ) from error
    return {key: value.to(place, dtype if value.is_floating_point() else None) for key, value in inputs.items()}


def check_tokens(name: str, model: Any, ids: Tensor, folder: Path) -> None:
    """Raises ConfigError for a token that the model does not have; on a GPU it would destroy the CUDA context."""
    size = getattr(getattr(model.config, "text_config", model.config), "vocab_size", None)
    if size is not None and ids.numel() and int(ids.max()) >= size:
        raise ConfigError(
            f"encoder {name!r}: its tokenizer returned token {int(ids.max())}, but its model has {size} tokens",
            f"tokenizer and model do not match: check the files in {folder}",
        )


def first_use(name: str, folder: Path, run: Callable[[], Tensor]) -> int:
    """D of the features [1, D] that `run` computes of a sample: wrong settings of a processor show only in use. ConfigError if
    it fails."""
    try:
        with torch.inference_mode():
            features = run()
        if features.ndim != 2 or len(features) != 1:
            raise ValueError(f"features of shape {tuple(features.shape)}")
    except Exception as error:
        if isinstance(error, ConfigError) or not is_fault(error):
            raise
        reason = " ".join((str(error) or type(error).__name__).split())
        raise ConfigError(
            f"encoder {name!r} from {folder} fails on a sample: {reason:.300}",
            "check that the folder is complete and contains an encoder of this kind",
        ) from error
    return int(features.shape[1])
