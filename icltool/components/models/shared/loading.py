"""Loading weights, the same way for every adapter: precision, devices, quantization, attention, and what can go wrong."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from icltool.components.models.shared.memory import check_memory, parameter_count
from icltool.components.models.shared.options import DTYPES, TransformersOptions
from icltool.components.models.shared.weights import Weights, file_fault
from icltool.errors import ConfigError, IclError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    ModelClass = type[PreTrainedModel] | type[_BaseAutoModelClass]

    class Network(PreTrainedModel, GenerationMixin):
        """A model of transformers that writes answers. What parts it has its own class alone says."""

        base_model: Network

        def get_decoder(self) -> Network: ...
        def get_output_embeddings(self) -> torch.nn.Module: ...
        def __getattr__(self, name: str) -> Any: ...


#: How the classes of compiled parts end in transformers.
COMPILED = ("MLP", "RMSNorm")

#: How huggingface_hub and transformers say that they got no answer.
_UNREACHABLE = re.compile(
    r"connect to|outgoing traffic has been disabled|offline mode|Max retries|resolve", re.IGNORECASE
)
#: Characters of another library's error that are shown, at most.
MESSAGE = 240


@dataclass(frozen=True)
class Loaded:
    """`model` in evaluation mode, without gradients; `device` takes its inputs; `precision` names dtype and quantization."""

    model: Network
    device: torch.device
    precision: str


def load_model(model_class: ModelClass, weights: Weights, options: TransformersOptions) -> Loaded:
    """Loads `model_class` (a transformers model or auto class) after checking that it can fit.

    Raises ConfigError when an option cannot be met, the weights are missing, damaged or of another architecture, or
    memory does not suffice.
    """
    name, precision = options.name, options.precision()
    arguments: dict[str, Any] = {"dtype": DTYPES[precision], **weights.where}
    if options.attention is not None:
        arguments["attn_implementation"] = _attention(options.attention)
    if options.quantization is not None:
        arguments["quantization_config"] = _quantized(options.quantization, DTYPES[precision])
    place = None if options.spread is not None else options.target()
    if options.spread is not None:
        arguments["device_map"] = _with_accelerate("--device-map", options.spread)
    elif place is not None and place.type != "cpu" and _present("accelerate"):
        arguments["device_map"] = {"": place}  # straight to the GPU, without a copy in the CPU's memory
    with loading_errors(name, weights):
        _same_architecture(model_class, name, weights)
        counted = parameter_count(weights.source, lambda: _on_meta(model_class, weights))
        check_memory(name, counted, options.quantization or precision, place)
        loaded: Any = model_class.from_pretrained(
            weights.source, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
    model, report = loaded
    _complete(name, weights, report)
    if place is not None and "device_map" not in arguments:
        model.to(place)
    model.eval().requires_grad_(False)
    if options.compile:
        compile_parts(model)
    named = f"{precision}-{options.quantization}" if options.quantization else precision
    return Loaded(model, place or _input_device(model), named)


def compile_parts(model: torch.nn.Module) -> int:
    """Compiles the forward passes of all norms and feed-forward layers, for any batch; gives their number.

    Attention stays as it is: it is one fused kernel already, and what is around it (caches, masks) changes its shape with
    every step. Nothing is compiled before it runs; the first batches then take up to a minute more. Where there is no
    compiler, parts run as they are, with a warning.
    """
    torch._dynamo.config.suppress_errors = True
    parts = [part for part in model.modules() if type(part).__name__.endswith(COMPILED)]
    for part in parts:
        part.forward = torch.compile(part.forward, dynamic=True)
    return len(parts)


def is_fault(error: BaseException) -> bool:
    """Whether it may come of a damaged file: any error, and the panics of libraries in Rust, which are no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class loading_errors:  # noqa: N801 (reads as a statement)
    """Context that turns what transformers raises for missing, damaged or foreign files, which may be anything, into a
    ConfigError."""

    def __init__(self, name: str, weights: Weights) -> None:
        self._told = f"model {name} cannot be loaded from {weights.source}"
        self._folder = Path(weights.source) if Path(weights.source).is_dir() else None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise ConfigError(
                f"{self._told}: out of memory", "--dtype bfloat16, --quantization 4bit or --device-map auto take less"
            ) from error
        if isinstance(error, ValueError) and "trust_remote_code" in str(error):
            raise ConfigError(
                f"{self._told}: it comes with code of its own, which does not run unasked",
                "--trust-remote-code runs it, for an author whom you trust; else choose a model whose architecture "
                "transformers has",
            ) from error
        if self._folder is None and isinstance(error, OSError) and _UNREACHABLE.search(str(error)):
            raise ConfigError(
                f"{self._told}: there is no such folder here, no copy in the hub cache, and the hub cannot be reached",
                "give the folder of the weights, or connect the machine",
            ) from error
        if error is not None and is_fault(error) and not isinstance(error, IclError):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            first = " ".join(lines[0].split())
            if first.endswith(":"):  # what follows is the reason
                first = " ".join(" ".join(lines).split())[:MESSAGE]
            if type(error) is Exception:  # the class of what the library of tokenizers raises
                first = f"tokenizer.json: {first}"
            if self._folder is not None:
                first = file_fault(self._folder, f"{type(error).__name__} {error}") or first
            raise ConfigError(
                f"{self._told}: {first}", "check that the folder is whole, and holds a model of this kind"
            ) from error


#: No model has more layers, or a wider one or a larger vocabulary; building one takes for ever.
_MOST_LAYERS, _WIDEST, _LONGEST_SIDE = 4096, 1 << 24, 1 << 15
_LAYERS = re.compile(r"layers?$|^depth$|^n_layer|num_blocks?$")
_SIZES = re.compile(
    r"_size$|^width$|^context_length$|_dim$|^dim$|^n_embd$|^d_model$|num_experts|_heads$|_positions$|_embeddings$"
)


def check_sizes(whose: str, configuration: Mapping[str, object], where: str = "config.json") -> None:
    """ConfigError that says `whose`, for a configuration whose numbers no model has, before anything is built of them."""
    for key, value in configuration.items():
        if isinstance(value, Mapping):
            check_sizes(whose, value, f"{where}, {key}")
        elif isinstance(value, int) and not isinstance(value, bool):
            most = _MOST_LAYERS if _LAYERS.search(key) else _WIDEST if _SIZES.search(key) else None
            if most is not None and value > most:
                raise ConfigError(
                    f"{whose}: {where} says {key} = {value:,}, which no model has",
                    "the file is damaged: get it again",
                )


def check_image_processor(name: str, image_processor: BaseImageProcessor) -> None:
    """Reads a small image: what is wrong with the settings of an image processor shows there only. Raises whatever it does,
    and ConfigError for a size that no model reads."""
    from PIL import Image

    for key, value in image_processor.to_dict().items():
        sides = value.items() if isinstance(value, Mapping) else ()
        for side, length in sides:
            if side in {"height", "width"} and isinstance(length, int) and length > _LONGEST_SIDE:
                raise ConfigError(
                    f"model {name}: its image processor has {key} = {length:,} pixels, which no model reads",
                    "preprocessor_config.json is damaged: get it again",
                )
    image_processor(Image.new("RGB", (64, 48)), return_tensors="pt")


def _same_architecture(model_class: ModelClass, name: str, weights: Weights) -> None:
    """transformers would build the class that it is told to, whatever the files are of."""
    configuration = _config(weights)
    check_sizes(f"model {name}", configuration.to_dict())
    wanted = getattr(getattr(model_class, "config_class", None), "model_type", None)
    if wanted is None:  # an auto class takes what it finds
        return
    found = configuration.model_type
    if found != wanted:
        raise ConfigError(
            f"model {name} is of the architecture {wanted}, the files in {weights.source} are of {found}",
            "`--model image-text-to-text` reads chat models of any architecture, `--model text-llm` language models",
        )


def _config(weights: Weights) -> PreTrainedConfig:
    from transformers import AutoConfig

    found: PreTrainedConfig = AutoConfig.from_pretrained(weights.source, **weights.where)
    return found


def _complete(name: str, weights: Weights, report: Mapping[str, Iterable[Any]]) -> None:
    """transformers fills missing weights with random numbers and only warns; answers from those would be worthless. So it
    does with those of another size: what it would raise otherwise names none."""
    missing = sorted(str(key) for key in report.get("missing_keys", ()))
    if missing:
        raise ConfigError(
            f"model {name} cannot be loaded from {weights.source}: {len(missing)} of its weights are missing there, "
            f"{missing[0]} among them",
            "the files are incomplete, or of another architecture",
        )
    other = sorted((str(entry[0]), *entry[1:]) for entry in report.get("mismatched_keys", ()))
    if other:
        key, found, wanted = other[0]
        raise ConfigError(
            f"model {name} cannot be loaded from {weights.source}: {len(other)} of its weights have another size than its "
            f"config.json says, {key} among them: {tuple(found)}, not {tuple(wanted)}",
            "weights and config.json are of different models",
        )


def _on_meta(model_class: ModelClass, weights: Weights) -> torch.nn.Module:
    config = _config(weights)
    made: torch.nn.Module
    if hasattr(model_class, "from_config"):
        made = model_class.from_config(config, trust_remote_code=weights.trusted)
    else:
        made = model_class(config)
    return made


def _input_device(model: Network) -> torch.device:
    """Where a divided model takes its inputs: the first device of its map that computes."""
    places = [p for p in getattr(model, "hf_device_map", {}).values() if p not in ("cpu", "disk")]
    if not places:
        return torch.device("cpu")
    return torch.device("cuda", places[0]) if isinstance(places[0], int) else torch.device(places[0])


def _attention(wanted: str) -> str:
    if wanted == "flash_attention_2" and not _present("flash_attn"):
        raise ConfigError("flash_attention_2 needs the package flash-attn", "install it, or use --attention sdpa")
    return wanted


def _quantized(wanted: str, compute: torch.dtype) -> BitsAndBytesConfig:
    if not _present("bitsandbytes") or not torch.cuda.is_available():
        lacking = "the package bitsandbytes" if not _present("bitsandbytes") else "a GPU"
        raise ConfigError(
            f"quantization {wanted} needs {lacking}",
            "`pip install bitsandbytes accelerate` on a machine with a GPU, or use --dtype bfloat16 in its place",
        )
    _with_accelerate("--quantization", wanted)
    from transformers import BitsAndBytesConfig

    if wanted == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def _with_accelerate(option: str, value: str) -> str:
    if not _present("accelerate"):
        raise ConfigError(f"{option} {value} needs the package accelerate", "`pip install accelerate`")
    return value


def _present(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
