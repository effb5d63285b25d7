"""Options of adapters: where a model's weights are, and how to load them."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from pydantic import Field, ValidationInfo, field_validator

from icltool.contracts.options import Options
from icltool.contracts.prompt_file import PromptFile
from icltool.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoadOptions(Options):
    """Options of every adapter; a family with further options adds fields. The values are those of the command line.

    Raises ConfigError for an unknown value.
    """

    name: str = Field("model", description="name of the model in messages and artefacts")
    path: str | None = Field(
        None, description="folder of the weights, or OWNER/NAME to download them from the Hugging Face hub"
    )
    device: str = Field("auto", description="device to run on: cpu, cuda, cuda:1 …; auto uses a GPU if there is one")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="precision of the weights; auto is bfloat16 on a GPU, else float32"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = Field(
        None,
        title="attention implementation",
        description="attention implementation; default: the best that the model supports",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_choice(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        choices = [c for part in (field.annotation, *get_args(field.annotation)) for c in _literals(part)]
        if choices and value not in (field.default, *choices):
            title = field.title or info.field_name
            raise ConfigError(f"unknown {title} {value!r}", f"known: {', '.join(choices)}")
        return value

    @property
    def spread(self) -> str | None:
        """The device map that spreads the model over devices; None if it is on one."""
        return None

    def target(self) -> torch.device:
        """The device of a model on one device. Raises ConfigError for an unknown device, or a missing GPU."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError(f"unknown device {self.device!r}", "use cpu, cuda, cuda:1 …") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device {self.device} is not available: this machine has no GPU", "use --device cpu")
        return device

    def precision(self) -> str:
        """A key of DTYPES."""
        if self.dtype != "auto":
            return self.dtype
        gpu = torch.cuda.is_available() if self.spread is not None else self.target().type == "cuda"
        return "bfloat16" if gpu else "float32"


class TransformersOptions(LoadOptions):
    """Options of every adapter of a transformers model."""

    hub_id: str | None = Field(None, description="OWNER/NAME of the published weights on the Hugging Face hub")
    packaged: str | None = Field(None, description="name of weights that are part of icltool")
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        None,
        title="device map",
        description="spread the model over all GPUs and CPU memory, unless device names one; some models set it by default",
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="quantise the weights to 4 (NF4) or 8 bits, with bitsandbytes"
    )
    compile: bool = Field(
        False,
        description="compile norms and feed-forward layers with torch.compile, which saves a GPU many small operations",
    )

    @property
    def spread(self) -> str | None:
        return self.device_map if self.device == "auto" else None

    @property
    def trusted(self) -> bool:
        """Whether Python code from the model's repository may run."""
        return False


class OwnPrompt(Options):
    """Of adapters whose prompts a file can change."""

    prompt: PromptFile | None = Field(None, description="prompt of the user's own: --prompt FILE")


class RemoteCodeOptions(OwnPrompt, TransformersOptions):
    """Options of adapters that read any architecture."""

    trust_remote_code: bool = Field(False, description="run Python code from the model's repository")

    @property
    def trusted(self) -> bool:
        return self.trust_remote_code


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if getattr(annotation, "__origin__", None) is Literal else ()
