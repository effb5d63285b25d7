"""The trained parts of a network: frozen parts, modes, precision, and parameter groups of the optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

import torch
from torch.nn import Module, Parameter

from icltool.contracts import FineTuningSet, SupportsFineTuning
from icltool.contracts.fine_tuning import TunableModel
from icltool.errors import ConfigError


class Group(TypedDict):
    """Parameters of an optimiser with a common weight decay and factor of the learning rate."""

    params: list[Parameter]
    weight_decay: float
    scale: float


def tunable_model(data: FineTuningSet) -> TunableModel:
    """The set's model. Raises ConfigError if it cannot be fine-tuned."""
    if not isinstance(data.model, SupportsFineTuning):
        raise ConfigError(
            f"{data.model.name} cannot be fine-tuned as a captioner",
            "choose one that can: blip2-…, instructblip-…, blip-…, ofa-…",
        )
    return cast(TunableModel, data.model)


class TrainedParts:
    """The network without its frozen parts.

    `prepare` converts trained parameters to float32, `restore` converts them back with their new values. Raises ConfigError
    for unknown parts, and if nothing is left to train.
    """

    def __init__(self, network: Module, parts: Mapping[str, Sequence[str]], frozen: Sequence[str]) -> None:
        named = sorted(name for name in parts if not name.startswith("_"))
        for name in frozen:
            if name not in named:
                known = ", ".join(named) or "none"
                raise ConfigError(f"captioner option freeze: the model has no part {name!r}", f"its parts: {known}")
        self.network = network
        unused = [name for name in parts if name.startswith("_")]
        self._prefixes = [tuple(parts[name]) for name in (*frozen, *unused)]
        #: Parameters that are trained, by name.
        self.trained: dict[str, Parameter] = {n: p for n, p in network.named_parameters() if not self.is_frozen(n)}
        if not self.trained:
            raise ConfigError("nothing of the model is left to train", "freeze fewer parts: --option freeze=none")
        whole = [name for name, parameter in self.trained.items() if not parameter.is_floating_point()]
        if whole:
            raise ConfigError(
                f"quantized weights cannot be trained: {whole[0]}",
                "freeze their part, or leave out --quantization",
            )
        self._dtypes = {name: parameter.dtype for name, parameter in self.trained.items()}

    def is_frozen(self, name: str) -> bool:
        """Whether the parameter or module of this name is in a frozen part."""
        return any(_lies_in(name, prefixes) for prefixes in self._prefixes)

    def prepare(self) -> None:
        """Converts trained parameters to float32 and enables gradients for them alone."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in self.trained)
        for parameter in self.trained.values():
            parameter.data = parameter.data.float()

    def restore(self) -> None:
        """Restores eval mode and the original precision, without gradients."""
        self.network.eval()
        for name, parameter in self.trained.items():
            parameter.data = parameter.data.to(self._dtypes[name])
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None

    def train(self) -> None:
        """Sets training mode, but eval mode in frozen parts, which disables dropout and keeps batch statistics there."""
        for name, module in self.network.named_modules():
            module.training = not (name and self.is_frozen(name))

    def names(self) -> list[str]:
        """The names in the state dict that training changes: trained parameters, and batch statistics."""
        changed = list(self.trained)
        for name, module in self.network.named_modules():
            if isinstance(module, torch.nn.modules.batchnorm._NormBase) and not self.is_frozen(name):
                changed += [
                    f"{name}.{own}" for own, buffer in module.named_buffers(recurse=False) if buffer is not None
                ]
        present = self.network.state_dict().keys()
        return [name for name in changed if name in present]

    def groups(self, layers: Mapping[str, int], layer_decay: float, weight_decay: float) -> list[Group]:
        """Parameter groups with `weight_decay` (0 for biases and 1-D parameters) and `scale`, the factor of the learning rate:
        d^(L + 1 - layer) for parameters in `layers`, 1 for others."""
        top = max(layers.values(), default=0)
        by_setting: dict[tuple[float, float], list[Parameter]] = {}
        for name, parameter in self.trained.items():
            plain = parameter.ndim <= 1 or name.endswith(".bias") or name == "bias"
            scale = layer_decay ** (top - layers[name]) if name in layers else 1.0
            by_setting.setdefault((scale, 0.0 if plain else weight_decay), []).append(parameter)
        return [Group(params=own, weight_decay=decay, scale=scale) for (scale, decay), own in by_setting.items()]


def _lies_in(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a part contains the parameter or module: it has one of the prefixes and none of those beginning with "!"."""
    out = [prefix[1:] for prefix in prefixes if prefix.startswith("!")]
    into = [prefix for prefix in prefixes if not prefix.startswith("!")]
    return _begins(name, into) and not _begins(name, out)


def _begins(name: str, prefixes: Sequence[str]) -> bool:
    return any(name.startswith(prefix) or f"{name}." == prefix for prefix in prefixes)
