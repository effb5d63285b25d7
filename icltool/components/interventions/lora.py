"""Low-rank adapters in the decoder's self-attention: LoRA, by PEFT."""

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
#: What PEFT calls the adapters.
_NAME = "icltool"


class LoRA(StoredIntervention):
    """Each projection W x becomes W x + (alpha / rank) B A x (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    The file holds `LAYER.TARGET.A` float32 [rank, in] and `LAYER.TARGET.B` float32 [out, rank]; rank, alpha and targets are
    among the options that it records. Where one matrix makes queries and values, it has one pair of adapters.
    """

    everywhere = True

    def __init__(self, options: StoredOptions) -> None:
        """Raises StoreError for a file that is none of this method's."""
        super().__init__(options)
        try:
            trained = self._stored.about["options"]
            self._rank, self._alpha = int(trained["rank"]), float(trained["lora_alpha"])
            self._targets = tuple(map(str, trained["targets"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"its header says nothing of its rank, alpha and targets ({error})") from error

    def check(self, model: Model) -> None:
        """See Intervention. ConfigError, too, where PEFT is not installed."""
        check_base(self._stored, model)
        need_peft()

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """See Intervention."""
        import torch

        hooked = check_base(self._stored, model)
        with torch.random.fork_rng(devices=[]):  # what they start with is drawn, and not used
            adapters = LowRankAdapters(hooked, self._targets, self._rank, self._alpha)
        self._fill(adapters)
        with adapters.injected():
            yield

    def _fill(self, adapters: LowRankAdapters) -> None:
        import torch

        own = adapters.weights()
        if own.keys() != self._stored.tensors.keys():
            name = min(own.keys() ^ self._stored.tensors.keys())
            raise self._damaged(f"tensor {name!r} is missing, or one too many")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(self._stored.tensor(name, *weight.shape)).requires_grad_(False)

    def _damaged(self, why: str) -> StoreError:
        return StoreError(f"{self.file} is damaged: {why}", again(self.method))


def need_peft() -> None:
    """ConfigError where PEFT is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "lora needs PEFT, which is not installed", "install it: pip install 'icltool[lora]'"
        ) from error


@dataclass(frozen=True)
class _Site:
    """A projection of one layer: its name in files, the module, and where it hangs: (parent, attribute)."""

    name: str
    module: Module
    places: tuple[tuple[Module, str], ...]


class LowRankAdapters:
    """PEFT's adapters for the self-attention of a model's decoder, float32, on the devices of their layers.

    PEFT wraps the projections apart from the model, and the wrappers stand in their place only within `injected`: nothing
    of PEFT is left on the model. A starts at random from torch's generator, B at zero. ConfigError for projections that
    PEFT cannot wrap.
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
        found: dict[str, Tensor] = {}
        for site, (a, b, _) in zip(self._sites, self.trained(), strict=True):
            found[f"{site.name}.A"], found[f"{site.name}.B"] = a.get_parameter("weight"), b.get_parameter("weight")
        return found

    @contextmanager
    def injected(self) -> Iterator[None]:
        """Within it the wrapped projections stand in place of the model's own."""
        with ExitStack() as stack:
            for site, wrapped in zip(self._sites, self._wrapped, strict=True):
                for parent, name in site.places:
                    stack.callback(setattr, parent, name, site.module)
                    setattr(parent, name, wrapped)
            yield


def _sites(model: SupportsDecoderHooks, targets: Sequence[str]) -> list[_Site]:
    found = []
    layers = model.decoder_layers()
    for number, (layer, heads) in enumerate(zip(layers, model.attention_heads(), strict=True)):
        named = {id(getattr(heads, target)): target for target in reversed(TARGETS) if target in targets}
        places: dict[int, list[tuple[Module, str]]] = {key: [] for key in named}
        modules = {id(getattr(heads, target)): getattr(heads, target) for target in TARGETS}
        for parent in layer.modules():
            for name, child in parent.named_children():
                if id(child) in places:
                    places[id(child)].append((parent, name))
        for key in sorted(named, key=lambda key: TARGETS.index(named[key])):
            if not places[key]:
                raise ConfigError(
                    f"the {named[key]} projection of decoder layer {number} is no part of the layer: lora has no place for "
                    "its adapters",
                    f"leave it out: --option targets={','.join(t for t in targets if t != named[key]) or 'output'}",
                )
            found.append(_Site(f"{number}.{named[key]}", modules[key], tuple(places[key])))
    return found


def _wrap(sites: Sequence[_Site], rank: int, alpha: float, dropout: float) -> list[Any]:
    """PEFT's wrapper of each projection; whether their own weights are trained stays as it was."""
    need_peft()
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    if any(weight.is_meta for site in sites for weight in site.module.parameters()):
        raise ConfigError(
            "some of this model's layers are kept in the CPU's memory and have no place on a GPU: lora cannot be used with it",
            "more GPUs for --device-map, --quantization, or --device cpu",
        )
    apart = torch.nn.Module()
    for number, site in enumerate(sites):
        apart.add_module(f"site{number}", site.module)
    # bitsandbytes' layers are wrapped only where the model says that it has such
    apart.is_loaded_in_8bit = apart.is_loaded_in_4bit = True  # type: ignore[assignment]
    trained = [(weight, weight.requires_grad) for weight in apart.parameters()]
    options: Mapping[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    try:
        inject_adapter_in_model(LoraConfig(target_modules="site[0-9]+", **options), apart, _NAME)
    except (ValueError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"PEFT cannot put adapters on this model's projections: {reason}", "load it without quantization"
        ) from error
    finally:
        for weight, before in trained:
            weight.requires_grad_(before)
    wrapped = [getattr(apart, f"site{number}") for number in range(len(sites))]
    for layer in wrapped:
        layer.lora_A[_NAME].float()
        layer.lora_B[_NAME].float()
    return wrapped
