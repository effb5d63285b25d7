"""Intervention files: a safetensors file whose header records its model and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from icltool.contracts import Model, ModelIdentity, SupportsDecoderHooks
from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import replace_file

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA, VERSION = "icltool-intervention", 1
#: The file that a learner writes into its folder.
WEIGHTS = "last.safetensors"


@dataclass(frozen=True)
class Stored:
    """The content of a file. `tensors` by name; `digest` is a hash of the header and all numbers."""

    path: Path
    method: str
    base: ModelIdentity
    about: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: str

    @property
    def numbers(self) -> int:
        """The number of values in all tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def tensor(self, name: str, *shape: int) -> Tensor:
        """The tensor of this name. Raises StoreError if it is missing or does not have this shape (-1: any size)."""
        tensor = self.tensors.get(name)
        if (
            tensor is None
            or tensor.ndim != len(shape)
            or any(w not in (-1, n) for n, w in zip(tensor.shape, shape, strict=True))
        ):
            fault = "is missing" if tensor is None else f"has the shape {list(tensor.shape)}, not {list(shape)}"
            raise StoreError(f"{self.path} is damaged: its tensor {name!r} {fault}", again(self.method))
        return tensor


def save_intervention(
    path: Path, method: str, base: ModelIdentity, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Writes the file atomically; tensors are moved to the CPU. Raises StoreError if it cannot be written."""
    from safetensors.torch import save as to_bytes

    header = {
        "format": "pt",
        "schema": SCHEMA,
        "version": str(VERSION),
        "method": method,
        "base": json.dumps(asdict(base), sort_keys=True),
        "about": json.dumps(dict(about), sort_keys=True),
    }
    content = to_bytes({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, header)
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def read_intervention(path: Path) -> Stored:
    """The content of a file. Raises StoreError if it is missing, unreadable, or not an intervention file."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise _not_an_intervention(path, "it is not a regular file")
    try:
        path.open("rb").close()  # gives better errors than safetensors for anything but a file
        with safe_open(path, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", "create it with `icltool train`: live, mimic, lora …") from error
    except IsADirectoryError as error:
        raise StoreError(f"{path} is a folder", f"name the file in it, for example {path / WEIGHTS}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    except SafetensorError as error:
        raise _not_an_intervention(path, f"it is truncated or not a safetensors file ({error})") from error
    stored = _stored(path, header, tensors, _digest(header, tensors))
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise StoreError(f"{path} contains numbers that are not finite", again(stored.method))
    return stored


def check_base(stored: Stored, model: Model) -> SupportsDecoderHooks:
    """The model, if the file was trained for it; else raises ConfigError.

    Layers and width are compared first: if they differ, it is another model, whatever its files are called.
    """
    if not isinstance(model, SupportsDecoderHooks):
        raise ConfigError(
            f"model {model.name} does not support decoder hooks, which {stored.method} needs",
            "see `icltool plugins show models NAME`",
        )
    expected, actual = stored.base, model.base_model()
    for what, trained_with, has in (
        ("layers", expected.sites, actual.sites),
        ("hidden size", expected.width, actual.width),
    ):
        if trained_with != has:
            raise ConfigError(
                f"{stored.path} was trained for {expected.name} ({what}: {trained_with}), not for {actual.name} "
                f"({what}: {has})",
                _way_out(stored, actual),
            )
    if expected.weights != actual.weights:
        raise ConfigError(
            f"{stored.path} was trained for other weights: those of {expected.name} with hash {expected.weights}, not those "
            f"of {actual.name} with hash {actual.weights}",
            _way_out(stored, actual),
        )
    return model


def template_remark(stored: Stored, model: SupportsDecoderHooks) -> str:
    """A remark if the prompt format differs from that of the training; else ""."""
    if stored.base.template == model.base_model().template:
        return ""
    return "trained with another prompt format than the model has now: see --prompt and --prompt-template"


def _way_out(stored: Stored, actual: ModelIdentity) -> str:
    same = stored.base.name == actual.name
    other = "pass its weights as --model-path" if same else f"use --model {stored.base.name}"
    return f"{other}, or run `icltool train {stored.method}`{' --overwrite' if same else ''} for this model"


def again(method: str) -> str:
    return f"run `icltool train {method}` again"


def _stored(path: Path, header: Mapping[str, str], tensors: dict[str, Tensor], digest: str) -> Stored:
    if header.get("schema") != SCHEMA:
        raise _not_an_intervention(path, "it contains other weights")
    if header.get("version") != str(VERSION):
        raise StoreError(
            f"{path} has schema version {header.get('version')}, but this version of icltool reads {VERSION}",
            again(header.get("method", "live")),
        )
    try:
        raw = json.loads(header["base"])
        base = ModelIdentity(**{f.name: type(raw[f.name])(raw[f.name]) for f in fields(ModelIdentity)})
        return Stored(path, header["method"], base, dict(json.loads(header["about"])), tensors, digest)
    except (KeyError, TypeError, ValueError) as error:
        raise _not_an_intervention(path, f"its header is damaged ({error})") from error


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """A hash of the content, not of the bytes: safetensors writes its header in a different order each time."""
    import torch

    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    digest = hashlib.blake2b(json.dumps([dict(header), shapes], sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _not_an_intervention(path: Path, why: str) -> StoreError:
    return StoreError(
        f"{path} is not an intervention file: {why}",
        "give a file written by `icltool train`: last.safetensors of live, mimic, lora …",
    )
