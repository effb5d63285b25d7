"""Estimates before loading whether a model's weights fit into the free memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from icltool.components.models.shared.weights import cached_file
from icltool.errors import ConfigError

#: Share on top of the weights for buffers, kernel workspaces and fragmentation. Activations depend on the batch size, which
#: is halved when they do not fit.
MARGIN = 0.1
#: Bytes per parameter. A quantized model keeps its embeddings and norms in half precision, and scales beside the codes.
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.15, "4bit": 0.7}
_GIB = 2**30


def parameter_count(source: str, on_meta: Callable[[], torch.nn.Module]) -> int:
    """Parameters of the weights in `source`, a folder or a hub id.

    They are read from the headers of the safetensors files if these are on this machine; else they are counted in the model
    that `on_meta` builds from its configuration without allocating memory.
    """
    config = None if Path(source).is_dir() else cached_file(source, "config.json")
    files = _weight_files(Path(source) if config is None else config.parent)
    if files and all(file.is_file() for file in files):
        return sum(_in_header(file) for file in files)
    with torch.device("meta"):
        model = on_meta()
    return sum(p.numel() for p in model.parameters())


def free_memory(device: torch.device | None) -> int:
    """Free bytes on `device`; for None those of all GPUs and of the CPU together, as a device map can use them."""
    if device is None:
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
        return sum(torch.cuda.mem_get_info(i)[0] for i in gpus) + int(psutil.virtual_memory().available)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_memory(
    name: str, parameters: int, precision: str, device: torch.device | None, free: Callable[..., int] = free_memory
) -> None:
    """Raises ConfigError if the weights in `precision` (a key of BYTES) do not fit; the hint lists what would help.

    `device` is None if a device map spreads the model. `free` is called like `free_memory`.
    """
    needed = parameters * BYTES[precision] * (1 + MARGIN)
    available = free(device)
    if needed <= available:
        return
    where = "on all devices together" if device is None else f"on {device}"
    raise ConfigError(
        f"model {name} does not fit: {parameters / 1e9:.2f} billion parameters in {precision} need "
        f"{needed / _GIB:.1f} GiB ({MARGIN:.0%} margin included), {available / _GIB:.1f} GiB are free {where}",
        "; ".join(_ways_out(precision, device)),
    )


def _ways_out(precision: str, device: torch.device | None) -> list[str]:
    ways = []
    if precision == "float32":
        ways.append("--dtype bfloat16 takes half of that")
    if precision not in ("4bit", "8bit") and torch.cuda.is_available():
        ways.append("--quantization 4bit takes about a third of bfloat16")
    if device is not None and torch.cuda.is_available():
        ways.append("--device-map auto spreads it over all GPUs and the CPU's memory")
    return [*ways, "choose a smaller model"]


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads; others in the folder may hold the same weights in another layout."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return [folder / "model.safetensors"]


def _in_header(file: Path) -> int:
    """The number of values in a safetensors file, by its header: eight bytes of length, then JSON with every tensor's shape."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length > file.stat().st_size:
            raise ConfigError(f"{file} is truncated or not a safetensors file", "download it again")
        try:
            header: dict[str, Any] = json.loads(handle.read(length))
        except ValueError as error:
            raise ConfigError(f"{file} is truncated or not a safetensors file", "download it again") from error
    return sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
