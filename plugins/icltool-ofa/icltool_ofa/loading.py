"""Loading a checkpoint folder, with one-line errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open

from icltool.errors import ConfigError, DataError, IclError
from icltool_ofa.config import OFAConfig
from icltool_ofa.network import OFAForConditionalGeneration

# In the order in which transformers looks for them.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def load_config(folder: Path) -> OFAConfig:
    """The configuration in `folder`/config.json.

    Raises
    ------
    DataError
        There is no such file, or it is malformed.
    ConfigError
        It is another model's, or asks for what is not supported.
    """
    path = Path(folder) / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "an OFA folder has config.json, weights and a vocabulary") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", "download the file again") from None
    kind = fields.get("model_type", "ofa") if isinstance(fields, dict) else None
    if kind != "ofa":
        raise ConfigError(
            f"{path} describes a model of type {kind!r}, not an OFA", "name the folder of an OFA checkpoint"
        )
    try:
        return OFAConfig.from_dict(fields)
    except IclError:
        raise
    except Exception as error:  # transformers checks the fields' types with errors of several classes
        raise DataError(f"{path} is malformed: {_first_line(error)}", "download the file again") from error


def load_network(
    folder: Path, *, config: OFAConfig | None = None, dtype: torch.dtype = torch.float32
) -> OFAForConditionalGeneration:
    """The network of a folder with config.json and model.safetensors or pytorch_model.bin, in evaluation mode, on the CPU.

    `config` replaces the folder's own configuration, to set dropout or drop-path rates for training. Every weight must be
    there and have its place, of tied ones any will do; buffers that are computed may be there or not. Nothing is unpickled.

    Raises
    ------
    DataError
        A file is missing or unreadable, or the weights do not fit the configuration; the message names the first that does not.
    ConfigError
        The configuration is refused.
    """
    folder = Path(folder)
    config = config or load_config(folder)
    with torch.device("meta"):
        plan = OFAForConditionalGeneration(config)
    _compare(folder, plan, _shapes(folder))
    return OFAForConditionalGeneration.from_pretrained(folder, config=config, dtype=dtype, local_files_only=True).eval()


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a folder's weights by name; no data is read."""
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no weights", "an OFA folder has model.safetensors or pytorch_model.bin")
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        if path.suffix == ".json":
            parts = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        else:
            parts = [path.name]
        for part in parts:
            shapes |= _file_shapes(folder / part)
    except Exception as error:  # a damaged file ends in errors of many classes, by where the damage is
        raise DataError(f"{path} cannot be read: {_first_line(error)}", "download the file again") from error
    return shapes


def _file_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    held = torch.load(path, map_location="meta", weights_only=True)
    return {name: tuple(tensor.shape) for name, tensor in held.items()}


def _compare(folder: Path, plan: OFAForConditionalGeneration, shapes: dict[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in plan.state_dict().items()}
    for name in sorted(expected.keys() & shapes.keys()):
        if expected[name] != shapes[name]:
            raise DataError(
                f"{name} in {folder} has the shape {list(shapes[name])}, but the configuration needs {list(expected[name])}",
                "the weights and config.json belong to different sizes",
            )
    tied = plan.all_tied_weights_keys
    groups = [{source} | {target for target in tied if tied[target] == source} for source in set(tied.values())]
    spared = set().union(*(group for group in groups if group & shapes.keys()))
    lacking = _unless(expected.keys() - shapes.keys() - spared, plan._keys_to_ignore_on_load_missing)
    if lacking:
        raise DataError(
            f"the weights in {folder} lack {_summary(lacking)}", "they are incomplete, or belong to another OFA"
        )
    surplus = _unless(shapes.keys() - expected.keys(), plan._keys_to_ignore_on_load_unexpected)
    if surplus:
        raise DataError(f"the weights in {folder} have {_summary(surplus)}, which no OFA of this kind has")


def _unless(names: set[str], patterns: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not any(re.search(pattern, name) for pattern in patterns))


def _summary(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
