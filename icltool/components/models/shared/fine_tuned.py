"""Files of fine-tuned weights: the trained tensors, which replace those of the base weights.

A safetensors file. Its header's entry "icltool" is JSON: schema and version, `model` (the registered name), `base` (location
of the base weights: a folder or hub id, "" for weights in a package), `base_hash` (see `weights_hash`), `adapter` (what the
adapter needs to read the file: image size, styles …) and `about` (the learner's record).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import replace_file

SCHEMA, VERSION = "icltool.fine-tuned", 2
#: The schemas that are read, and their versions.
_READ = {"icltool.tuned": 1, SCHEMA: VERSION}
#: Which weights to take from a folder: the first of these that exists.
CHOICES = ("best.safetensors", "last.safetensors")
_HINT = "give the checkpoint folder of a training of `icltool train captioner`, or a folder that `icltool export model` wrote"


@dataclass(frozen=True)
class FineTuned:
    """A file of fine-tuned weights: its header, and `digest`, 12 hex characters of its content."""

    file: Path
    model: str
    base: str
    base_hash: str
    adapter: Mapping[str, Any]
    about: Mapping[str, Any]
    digest: str


def fine_tuned_file(path: Path) -> Path | None:
    """The file of fine-tuned weights at `path` (the file itself, or a checkpoint folder); None for anything else."""
    for candidate in [path] if path.is_file() else [path / name for name in CHOICES]:
        if candidate.suffix == ".safetensors" and candidate.is_file() and _header(candidate) is not None:
            return candidate
    return None


def read_fine_tuned(file: Path) -> FineTuned:
    """The header. Raises StoreError for a file that is damaged, of another schema version, or not of fine-tuned weights."""
    header = _header(file)
    if header is None:
        raise StoreError(f"{file} is not a file of fine-tuned weights", _HINT)
    if header.get("version") != _READ[header["schema"]]:
        raise StoreError(f"{file} has version {header.get('version')!r} of its schema, not {VERSION}", "train again")
    try:
        fields = {name: header[name] for name in ("model", "base", "base_hash", "adapter", "about")}
    except KeyError as error:
        raise StoreError(f"{file}: its header lacks {error}", _HINT) from error
    return FineTuned(file, digest=_digest(file), **fields)


def training_options(path: str | None) -> Mapping[str, Any]:
    """The training options of the fine-tuned weights at `path`; {} for a hub id and for any other weights."""
    file = fine_tuned_file(Path(path)) if path is not None and Path(path).exists() else None
    options = {} if file is None else read_fine_tuned(file).about.get("options", {})
    return options if isinstance(options, Mapping) else {}


def save_fine_tuned(
    file: Path,
    network: torch.nn.Module,
    names: Sequence[str],
    model: str,
    base: str,
    base_hash: str,
    adapter: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """Writes these tensors of the network's state dict, atomically. Raises KeyError for an unknown name, StoreError if the
    file cannot be written."""
    state = network.state_dict()
    tensors = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(names)}
    header = {
        "schema": SCHEMA,
        "version": VERSION,
        "model": model,
        "base": base,
        "base_hash": base_hash,
        "adapter": dict(adapter),
        "about": dict(about),
    }
    with replace_file(file) as temporary:
        temporary.write_bytes(save(tensors, {"icltool": json.dumps(header, sort_keys=True)}))


def apply_fine_tuned(network: torch.nn.Module, fine_tuned: FineTuned) -> None:
    """Puts the tensors into the network. Tensors trained in float32 stay in float32, whatever the network's precision: a model
    is evaluated, and trained further, exactly as its training left it. Raises ConfigError if a name or a shape does not fit,
    or if the network's tensor is quantized."""
    state = network.state_dict()
    # tied tensors have several names
    tensors = dict(network.named_parameters(remove_duplicate=False)) | dict(
        network.named_buffers(remove_duplicate=False)
    )
    with torch.no_grad():
        for name, tensor in _tensors(fine_tuned.file):
            if name not in state or state[name].shape != tensor.shape:
                fault = "it has none of that name" if name not in state else f"it has {tuple(state[name].shape)}"
                raise ConfigError(
                    f"{fine_tuned.file} does not fit model {fine_tuned.model}: {name} is {tuple(tensor.shape)} in the file, "
                    f"{fault}",
                    "use the base weights of its training",
                )
            own = state[name]
            if own.is_floating_point() != tensor.is_floating_point():
                raise ConfigError(
                    f"{fine_tuned.file} does not fit model {fine_tuned.model}: {name} is {tensor.dtype} in the file, "
                    f"here {own.dtype}",
                    "leave out --quantization",
                )
            if tensor.dtype == torch.float32 != own.dtype:
                tensors[name].data = tensor.to(own.device)
            else:
                own.copy_(tensor)


def tensor_names(file: Path) -> set[str]:
    """Names of the tensors in the file."""
    with safe_open(file, framework="pt") as opened:
        return set(opened.keys())


def check_fine_tuned(fine_tuned: FineTuned, model: str, base_hash: str) -> None:
    """Raises ConfigError if the file was trained from another model, or from other weights of it."""
    if fine_tuned.model != model:
        raise ConfigError(
            f"{fine_tuned.file} is a fine-tuned {fine_tuned.model}, not {model}", f"use --model {fine_tuned.model}"
        )
    if fine_tuned.base_hash != base_hash:
        raise ConfigError(
            f"{fine_tuned.file} was trained from other weights of {model} than those here",
            f"its base weights were in {fine_tuned.base or 'the package'}; set MODEL_CPK_DIR to their folder",
        )


def _header(file: Path) -> dict[str, Any] | None:
    """The JSON in the header; None for other safetensors files. Raises StoreError for a damaged file."""
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get("icltool")
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{file} is truncated or not a safetensors file: {error}", "restore it, or train again"
        ) from error
    if text is None:
        return None
    try:
        header = json.loads(text)
    except ValueError:
        return None
    return header if isinstance(header, dict) and str(header.get("schema")) in _READ else None


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118  (no mapping)
            yield name, opened.get_tensor(name)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()[:12]
