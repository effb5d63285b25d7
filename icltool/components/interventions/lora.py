"""Low-rank adapters in the decoder's self-attention: LoRA, using PEFT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icltool.components.interventions.files import again, check_base
from icltool.components.interventions.stored import StoredIntervention, StoredOptions
from icltool.contracts import Model, SupportsDecoderHooks
from icltool.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

#: The projections of an attention module that can have adapters.
TARGETS = ("query", "value", "output")
#: PEFT's name for the adapters.
_NAME = "icltool"


class LoRA(StoredIntervention):
    """Each projection W x becomes W x + (alpha / rank) B A x (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    The file holds `LAYER.TARGET.A` float32 [rank, in] and `LAYER.TARGET.B` float32 [out, rank]; rank, alpha and targets are
    among the recorded options. If one matrix computes queries and values, it has one pair of adapters.
    """

    everywhere = True

    def __init__(self, options: StoredOptions) -> None:
        """Raises StoreError for a file of another method."""
        super().__init__(options)
        try:
            trained = self._stored.about["options"]
            self._rank, self._alpha = int(trained["rank"]), float(trained["lora_alpha"])
            self._targets = tuple(map(str, trained["targets"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"its header does not contain rank, alpha and targets ({error})") from error

    def check(self, model: Model) -> None:
        """See Intervention. Also raises ConfigError if PEFT is not installed."""
        check_base(self._stored, model)
        need_peft()

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """See Intervention."""
        import torch

        hooked = check_base(self._stored, model)
        with torch.random.fork_rng(devices=[]):  # their random initial values are not used
            adapters = LowRankAdapters(hooked, self._targets, self._rank, self._alpha)
        self._fill(adapters)
        with adapters.injected():
            yield

    def _fill(self, adapters: LowRankAdapters) -> None:
        import torch

        own = adapters.weights()
        if own.keys() != self._stored.tensors.keys():
            name = min(own.keys() ^ self._stored.tensors.keys())
            raise self._damaged(f"tensor {name!r} is missing or unexpected")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(self._stored.tensor(name, *weight.shape)).requires_grad_(False)

    def _damaged(self, why: str) -> StoreError:
        return StoreError(f"{self.file} is damaged: {why}", again(self.method))


def need_peft() -> None:
    """Raises ConfigError if PEFT is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "lora needs PEFT, which is not installed", "install it: pip install 'icltool[lora]'"
        ) from error


@dataclass(frozen=True)
class _Site:
    """A projection of one layer: its name in files, the module, and its places in the model as (parent, attribute)."""

    name: str
    module: Module
    places: tuple[tuple[Module, str], ...]


class LowRankAdapters:
    """PEFT's adapters for the self-attention of a model's decoder, float32, on the devices of their layers.

    PEFT wraps the projections outside the model, and the wrappers replace them only within `injected`: PEFT leaves nothing on
    the model. A is initialised from torch's generator, B with zeros. Raises ConfigError for projections that PEFT cannot wrap.
    """

    def __init__(
        self, model: SupportsDecoderHooks, targets: Sequence[str], rank: int, alpha: float, dropout: float = 0.0
    ) -> None:
        self._sites = _sites(model, targets)
        self._wrapped = _wrap(self._sites, rank, alpha, dropout)

    def trained(self) -> list[list[Module]]:
        """For each projection, the torch modules of its adapter: A, B, dropout."""
        return [[layer.lora_A[_NAME], layer.lora_B[_NAME], layer.lora_dropout[_NAME]] for layer in self._wrapped]

    def weights(self) -> dict[str, Tensor]:
        """Parameters by their names in the file."""
        weights: dict[str, Tensor] = {}
        for site, (a, b, _) in zip(self._sites, self.trained(), strict=True):
            weights[f"{site.name}.A"], weights[f"{site.name}.B"] = a.get_parameter("weight"), b.get_parameter("weight")
        return weights

    @contextmanager
    def injected(self) -> Iterator[None]:
        """A context in which the wrapped projections replace the model's own."""
        with ExitStack() as stack:
            for site, wrapped in zip(self._sites, self._wrapped, strict=True):
                for parent, name in site.places:
                    stack.callback(setattr, parent, name, site.module)
                    setattr(parent, name, wrapped)
            yield


def _sites(model: SupportsDecoderHooks, targets: Sequence[str]) -> list[_Site]:
    sites = []
    layers = model.decoder_layers()
    for number, (layer, heads) in enumerate(zip(layers, model.attention_heads(), strict=True)):
        target_of = {id(getattr(heads, target)): target for target in reversed(TARGETS) if target in targets}
        places: dict[int, list[tuple[Module, str]]] = {key: [] for key in target_of}
        modules = {id(getattr(heads, target)): getattr(heads, target) for target in TARGETS}
        for parent in layer.modules():
            for name, child in parent.named_children():
                if id(child) in places:
                    places[id(child)].append((parent, name))
        for key in sorted(target_of, key=lambda key: TARGETS.index(target_of[key])):
            if not places[key]:
                raise ConfigError(
                    f"the {target_of[key]} projection of decoder layer {number} is not part of the layer, so lora cannot adapt "
                    "it",
                    f"leave it out: --option targets={','.join(t for t in targets if t != target_of[key]) or 'output'}",
                )
            sites.append(_Site(f"{number}.{target_of[key]}", modules[key], tuple(places[key])))
    return sites


def _wrap(sites: Sequence[_Site], rank: int, alpha: float, dropout: float) -> list[Any]:
    """PEFT's wrapper of each projection. The projections' `requires_grad` stays unchanged."""
    need_peft()
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    if any(weight.is_meta for site in sites for weight in site.module.parameters()):
        raise ConfigError(
            "some of this model's layers are offloaded to the CPU's memory, which lora does not support",
            "use more GPUs with --device-map, --quantization, or --device cpu",
        )
    holder = torch.nn.Module()
    for number, site in enumerate(sites):
        holder.add_module(f"site{number}", site.module)
    # PEFT wraps bitsandbytes' layers only if the model has these flags
    holder.is_loaded_in_8bit = holder.is_loaded_in_4bit = True  # type: ignore[assignment]
    trained = [(weight, weight.requires_grad) for weight in holder.parameters()]
    options: Mapping[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    try:
        inject_adapter_in_model(LoraConfig(target_modules="site[0-9]+", **options), holder, _NAME)
    except (ValueError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"PEFT cannot put adapters on this model's projections: {reason}", "load it without quantization"
        ) from error
    finally:
        for weight, before in trained:
            weight.requires_grad_(before)
    wrapped = [getattr(holder, f"site{number}") for number in range(len(sites))]
    for layer in wrapped:
        layer.lora_A[_NAME].float()
        layer.lora_B[_NAME].float()
    return wrapped
