"""Loading weights in the same way for every adapter: precision, devices, quantization, attention, and errors."""

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
        """A transformers model that generates text. Its parts depend on its class."""

        base_model: Network

        def get_decoder(self) -> Network: ...
        def get_output_embeddings(self) -> torch.nn.Module: ...
        def __getattr__(self, name: str) -> Any: ...


#: Suffixes of the transformers classes that are compiled.
COMPILED = ("MLP", "RMSNorm")

#: Messages of huggingface_hub and transformers for an unreachable hub.
_UNREACHABLE = re.compile(
    r"connect to|outgoing traffic has been disabled|offline mode|Max retries|resolve", re.IGNORECASE
)
#: Characters of another library's error in a message, at most.
MESSAGE = 240


@dataclass(frozen=True)
class Loaded:
    """`model` in evaluation mode, without gradients; its inputs go to `device`; `precision` names dtype and quantization."""

    model: Network
    device: torch.device
    precision: str


def load_model(model_class: ModelClass, weights: Weights, options: TransformersOptions) -> Loaded:
    """Loads `model_class` (a transformers model or auto class) after checking that it can fit.

    Raises ConfigError if an option is not supported, if the weights are missing, damaged or of another architecture, or if
    there is not enough memory.
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
        read_config(model_class, name, weights)
        counted = parameter_count(weights.source, lambda: _on_meta(model_class, weights))
        check_memory(name, counted, options.quantization or precision, place)
        loaded: Any = model_class.from_pretrained(
            weights.source, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
    model, report = loaded
    _complete(name, weights, report)
    if place is not None and "device_map" not in arguments:
        model.to(place)
    if not model.can_generate():
        raise ConfigError(
            f"model {name}, loaded from {weights.source}, does not generate text: it is a {type(model).__name__}",
            "choose a model that answers in words",
        )
    model.eval().requires_grad_(False)
    if options.compile:
        compile_parts(model)
    precision_name = f"{precision}-{options.quantization}" if options.quantization else precision
    return Loaded(model, place or _input_device(model), precision_name)


def compile_parts(model: torch.nn.Module) -> int:
    """Compiles the forward passes of all norms and feed-forward layers, for any batch shape; returns their number.

    Attention is not compiled: it is already one fused kernel, and its caches and masks change shape with every step.
    Compilation happens on first use, so the first batches take up to a minute longer. Without a compiler the parts run
    uncompiled, with a warning.
    """
    torch._dynamo.config.suppress_errors = True
    parts = [part for part in model.modules() if type(part).__name__.endswith(COMPILED)]
    for part in parts:
        part.forward = torch.compile(part.forward, dynamic=True)
    return len(parts)


def is_fault(error: BaseException) -> bool:
    """Whether a damaged file may cause it: any Exception, and panics of Rust libraries, which do not derive from it."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class loading_errors:  # noqa: N801 (reads as a statement)
    """A context that turns any error that transformers raises for missing, damaged or foreign files into a
    ConfigError."""

    def __init__(self, name: str, weights: Weights, kind: str = "model") -> None:
        self._message = f"{kind} {name} cannot be loaded from {weights.source}"
        self._folder = Path(weights.source) if Path(weights.source).is_dir() else None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise ConfigError(
                f"{self._message}: out of memory", "try --dtype bfloat16, --quantization 4bit or --device-map auto"
            ) from error
        if isinstance(error, ValueError) and "trust_remote_code" in str(error):
            raise ConfigError(
                f"{self._message}: it needs Python code from its repository, which icltool does not run by default",
                "use --trust-remote-code if you trust its author, or choose a model whose architecture is part of "
                "transformers",
            ) from error
        if self._folder is None and isinstance(error, OSError) and _UNREACHABLE.search(str(error)):
            raise ConfigError(
                f"{self._message}: there is no such folder, the hub cache has no copy, and the hub cannot be reached",
                "check the path, or connect this machine to the internet",
            ) from error
        if error is not None and is_fault(error) and not isinstance(error, IclError):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            first = " ".join(lines[0].split())
            if first.endswith(":"):  # the reason is on the next line
                first = " ".join(" ".join(lines).split())[:MESSAGE]
            if type(error) is Exception:  # the class that the tokenizers library raises
                first = f"tokenizer.json: {first}"
            if self._folder is not None:
                first = file_fault(self._folder, f"{type(error).__name__} {error}") or first
            raise ConfigError(
                f"{self._message}: {first}", "check that the folder is complete and contains a model of this kind"
            ) from error


#: Limits beyond any real model: building a larger one would never finish.
_MOST_LAYERS, _WIDEST, _LONGEST_SIDE = 4096, 1 << 24, 1 << 15
_LAYERS = re.compile(r"layers?$|^depth$|^n_layer|num_blocks?$")
_SIZES = re.compile(
    r"_size$|^width$|^context_length$|_dim$|^dim$|^n_embd$|^d_model$|num_experts|_heads$|_positions$|_embeddings$"
)


def check_sizes(whose: str, configuration: Mapping[str, object], where: str = "config.json") -> None:
    """Raises ConfigError, naming `whose`, for a configuration with numbers beyond any real model, before it is built."""
    for key, value in configuration.items():
        if isinstance(value, Mapping):
            check_sizes(whose, value, f"{where}, {key}")
        elif isinstance(value, int) and not isinstance(value, bool):
            most = _MOST_LAYERS if _LAYERS.search(key) else _WIDEST if _SIZES.search(key) else None
            if most is not None and value > most:
                raise ConfigError(
                    f"{whose}: {where} has {key} = {value:,}, which is beyond any real model",
                    "the file is damaged: download it again",
                )


def check_image_processor(name: str, image_processor: BaseImageProcessor) -> None:
    """Processes a small image, because wrong settings of an image processor show only in use. Raises whatever that raises,
    and ConfigError for a size beyond any real model."""
    from PIL import Image

    for key, value in image_processor.to_dict().items():
        sides = value.items() if isinstance(value, Mapping) else ()
        for side, length in sides:
            if side in {"height", "width"} and isinstance(length, int) and length > _LONGEST_SIDE:
                raise ConfigError(
                    f"model {name}: its image processor has {key} = {length:,} pixels, which is beyond any real model",
                    "preprocessor_config.json is damaged: download it again",
                )
    image_processor(Image.new("RGB", (64, 48)), return_tensors="pt")


def text_limit(config: PreTrainedConfig, reserve: int = 0) -> int | None:
    """The language model's token limit less `reserve`; None if its configuration names no limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else int(limit) - reserve


def read_config(model_class: ModelClass, name: str, weights: Weights) -> PreTrainedConfig:
    """The configuration. Raises ConfigError for damaged files and for those of another architecture than `model_class`:
    transformers would build that class from any files."""
    with loading_errors(name, weights):
        return _checked_config(model_class, name, weights)


def _checked_config(model_class: ModelClass, name: str, weights: Weights) -> PreTrainedConfig:
    configuration = _config(weights)
    check_sizes(f"model {name}", configuration.to_dict())
    expected = getattr(getattr(model_class, "config_class", None), "model_type", None)
    model_type = configuration.model_type
    if expected is not None and model_type != expected:  # an auto class accepts any architecture
        raise ConfigError(
            f"model {name} has the architecture {expected}, but the files in {weights.source} are for {model_type}",
            "use --model image-text-to-text for chat models of any architecture, --model text-llm for language models",
        )
    return configuration


def _config(weights: Weights) -> PreTrainedConfig:
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(weights.source, **weights.where)
    return config


def _complete(name: str, weights: Weights, report: Mapping[str, Iterable[Any]]) -> None:
    """Raises ConfigError for missing weights and weights of another size. transformers only warns and fills both with random
    numbers, and answers would be worthless."""
    missing = sorted(str(key) for key in report.get("missing_keys", ()))
    if missing:
        raise ConfigError(
            f"model {name} cannot be loaded from {weights.source}: {len(missing)} of its weights are missing there, "
            f"including {missing[0]}",
            "the files are incomplete, or for another architecture",
        )
    other = sorted((str(entry[0]), *entry[1:]) for entry in report.get("mismatched_keys", ()))
    if other:
        key, shape, expected = other[0]
        raise ConfigError(
            f"model {name} cannot be loaded from {weights.source}: {len(other)} of its weights do not have the size in its "
            f"config.json, including {key}: {tuple(shape)}, not {tuple(expected)}",
            "weights and config.json belong to different models",
        )


def _on_meta(model_class: ModelClass, weights: Weights) -> torch.nn.Module:
    config = _config(weights)
    model: torch.nn.Module
    if hasattr(model_class, "from_config"):
        model = model_class.from_config(config, trust_remote_code=weights.trusted)
    else:
        model = model_class(config)
    return model


def _input_device(model: Network) -> torch.device:
    """The input device of a model on several devices: the first in its map that computes."""
    places = [p for p in getattr(model, "hf_device_map", {}).values() if p not in ("cpu", "disk")]
    if not places:
        return torch.device("cpu")
    return torch.device("cuda", places[0]) if isinstance(places[0], int) else torch.device(places[0])


def _attention(implementation: str) -> str:
    if implementation == "flash_attention_2" and not _present("flash_attn"):
        raise ConfigError("flash_attention_2 needs the package flash-attn", "install it, or use --attention sdpa")
    return implementation


def _quantized(bits: str, compute: torch.dtype) -> BitsAndBytesConfig:
    if not _present("bitsandbytes") or not torch.cuda.is_available():
        lacking = "the package bitsandbytes" if not _present("bitsandbytes") else "a GPU"
        raise ConfigError(
            f"quantization {bits} needs {lacking}",
            "`pip install bitsandbytes accelerate` on a machine with a GPU, or use --dtype bfloat16 instead",
        )
    _with_accelerate("--quantization", bits)
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def _with_accelerate(option: str, value: str) -> str:
    if not _present("accelerate"):
        raise ConfigError(f"{option} {value} needs the package accelerate", "`pip install accelerate`")
    return value


def _present(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
