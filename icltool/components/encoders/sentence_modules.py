"""The modules of a sentence-transformers folder behind its transformer: pooling, layers and normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icltool.components.encoders.locating import read_json
from icltool.errors import ConfigError

#: The keys of a pooling layer's config.json, in the order in which several poolings are joined.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass
class SentenceModules:
    """What a folder says of a text encoder: `transformer` is the folder of its transformer, `pooling` how tokens become a
    vector (several are joined), `layers` what vectors go through after that.

    `prompts` are texts that stand in front of a text, by name; tokens of such a prompt are pooled unless `include_prompt` is
    false. `max_length` is the limit in tokens, None if there is none.
    """

    transformer: Path
    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    layers: list[nn.Module] = field(default_factory=list)
    normalize: bool = False
    max_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""


def read_modules(name: str, folder: Path) -> SentenceModules:
    """The modules that `folder` names in modules.json; without that file, the folder's transformer with the mean of its tokens.

    Raises ConfigError for a damaged file and for a module that is not supported.
    """
    modules = SentenceModules(folder)
    for module, place in _listed(name, folder):
        if module == "Transformer":
            modules.transformer = place
        elif module == "Pooling":
            config = read_json(name, place / "config.json")
            modules.pooling, modules.include_prompt = (
                _pooling(name, place, config),
                bool(config.get("include_prompt", True)),
            )
        elif module == "Normalize":
            modules.normalize = True
        elif module in ("Dense", "LayerNorm"):
            _check_order(name, folder, module, modules)
            modules.layers.append(_layer(name, place, module))
        elif module != "Dropout":
            hint = (
                f"--encoder-path {place}"
                if module == "CLIPModel"
                else "choose a model of Transformer, Pooling and Dense"
            )
            raise ConfigError(
                f"encoder {name!r}: {folder / 'modules.json'} has a module {module}, which icltool does not read", hint
            )
    for file in sorted(modules.transformer.glob("sentence_*_config.json")):
        settings = read_json(name, file)
        length = settings.get("max_seq_length")
        modules.max_length = length if isinstance(length, int) and length > 0 else None
        modules.lower_case = settings.get("do_lower_case") is True
    if (file := folder / "config_sentence_transformers.json").is_file():
        settings = read_json(name, file)
        prompts = settings.get("prompts")
        modules.prompts = {str(k): str(v) for k, v in prompts.items()} if isinstance(prompts, dict) else {}
        modules.default_prompt = modules.prompts.get(str(settings.get("default_prompt_name")), "")
    return modules


def pooled(states: Tensor, mask: Tensor, poolings: Sequence[str], skipped: int = 0) -> Tensor:
    """The vectors of texts: float [n, T, D] -> [n, D x poolings]. `mask` int [n, T] is 0 for padding, on either side; of each
    text's tokens the first `skipped` are left out."""
    number = mask.cumsum(dim=1) * mask  # 1 for a text's first token, 0 for padding
    mask = mask * (number > skipped)
    return torch.cat([_pool(states, mask, number, pooling) for pooling in poolings], dim=-1)


def _pool(states: Tensor, mask: Tensor, number: Tensor, pooling: str) -> Tensor:
    rows = torch.arange(len(states), device=states.device)
    if pooling == "cls":
        return states[rows, mask.argmax(dim=1)]
    if pooling == "lasttoken":
        return states[rows, (number * mask).argmax(dim=1)]
    if pooling == "max":
        return states.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)
    weights = (mask * number if pooling == "weightedmean" else mask)[..., None].to(states.dtype)
    total = weights.sum(dim=1).clamp(min=1e-9)
    return (states * weights).sum(dim=1) / (total.sqrt() if pooling == "mean_sqrt_len_tokens" else total)


def _listed(name: str, folder: Path) -> list[tuple[str, Path]]:
    """(class, folder) of each module, in their order."""
    import json

    file = folder / "modules.json"
    if not file.is_file():
        return []
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return [(str(entry["type"]).rpartition(".")[2], folder / str(entry["path"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"encoder {name!r}: {file} does not list modules of sentence-transformers", "download it again"
        ) from error


def _pooling(name: str, place: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The poolings of a config.json, as older releases of sentence-transformers write them (a truth value each) or newer ones
    (`pooling_mode`)."""
    modes = config.get("pooling_mode", [mode for key, mode in _POOLINGS.items() if config.get(key) is True] or "mean")
    poolings = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = next((pooling for pooling in poolings if pooling not in _POOLINGS.values()), None)
    if unknown is not None:
        raise ConfigError(
            f"encoder {name!r}: {place / 'config.json'} names the pooling {unknown!r}, which icltool does not have",
            f"--encoder-option pooling=NAME: {', '.join(_POOLINGS.values())}",
        )
    return poolings


def _check_order(name: str, folder: Path, module: str, modules: SentenceModules) -> None:
    if modules.normalize:
        raise ConfigError(
            f"encoder {name!r}: {folder / 'modules.json'} has {module} after Normalize, which icltool does not read",
            "choose a model whose last module is Normalize",
        )


def _layer(name: str, place: Path, module: str) -> nn.Module:
    """A layer with its weights. ConfigError if these are missing or do not fit its config.json."""
    config = read_json(name, place / "config.json")
    try:
        if module == "LayerNorm":
            layer: nn.Module = nn.LayerNorm(int(config["dimension"]))
            layer.load_state_dict({key.removeprefix("norm."): value for key, value in _weights(place).items()})
            return layer
        if config.get("module_input_name", "sentence_embedding") != "sentence_embedding" or config.get("use_residual"):
            raise ValueError("a Dense layer of tokens or with a residual is not supported")
        linear = nn.Linear(int(config["in_features"]), int(config["out_features"]), bool(config.get("bias", True)))
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in _weights(place).items()})
        activation = getattr(nn, str(config.get("activation_function", "Tanh")).rpartition(".")[2])()
        return nn.Sequential(linear, activation)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"encoder {name!r}: the layer in {place} cannot be read: {reason:.200}",
            "check that the folder is complete",
        ) from error


def _weights(place: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if (place / "model.safetensors").is_file():
        return load_file(place / "model.safetensors")
    weights: dict[str, Tensor] = torch.load(place / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return weights
