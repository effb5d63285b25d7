"""The options of the Lever-LM learner, and what its variants read."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from icltool.errors import ConfigError


@dataclass(frozen=True)
class Variant:
    """Which embeddings are added at the QUERY position and at each ICD's position, besides the token's."""

    query: tuple[str, ...]
    icd: tuple[str, ...]

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.query + self.icd)


VARIANTS: dict[str, Variant] = {
    "query_img_icd_idx": Variant(("image",), ()),
    "query_img_icd_img": Variant(("image",), ("image",)),
    "query_img_icd_text": Variant(("image",), ("text",)),
    "query_img_icd_img_text": Variant(("image",), ("image", "text")),
    "query_img_text_icd_img_text": Variant(("image", "text"), ("image", "text")),
    "query_text_icd_text": Variant(("text",), ("text",)),
}

#: Defaults that depend on the network.
NETWORK_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 512},
    "lstm": {"n_embd": 128},
    "pointer": {"n_embd": 128, "n_head": 4, "norm": True, "lr": 1e-3, "epochs": 10},
}

#: Trainer options that the learner sets itself.
RESERVED_TRAINER_OPTIONS = frozenset(
    {"logger", "callbacks", "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "default_root_dir"}
)


class LeverLMOptions(BaseModel):
    """Everything that decides what Lever-LM learns from a training set and a seed."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    variant: Literal[
        "query_img_icd_idx",
        "query_img_icd_img",
        "query_img_icd_text",
        "query_img_icd_img_text",
        "query_img_text_icd_img_text",
        "query_text_icd_text",
    ] = Field("query_img_icd_img_text", description="which embeddings of query and ICDs the model reads")
    network: Literal["gpt2", "lstm", "pointer"] = Field(
        "gpt2", description="sequence model: gpt2 and lstm as published; pointer knows examples by their features alone"
    )
    n_embd: int = Field(512, ge=1, description="width of the model (default 512 for gpt2, 128 for lstm and pointer)")
    n_head: int = Field(8, ge=1, description="attention heads (gpt2; pointer 4)")
    n_layer: int = Field(2, ge=1, description="layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate, everywhere in the network")
    n_positions: int = Field(256, ge=4, description="longest row in tokens (gpt2): at most n_positions - 1 shots")
    adapter: bool = Field(
        True,
        description="map embeddings through an MLP; without it n_embd must be the embeddings' width (pointer: linear layers "
        "always)",
    )
    norm: bool = Field(False, description="L2-normalise the embeddings first (default true for pointer)")
    projection: int = Field(64, ge=1, description="pointer: width of the space in which the next ICD is sought")
    contrast: Literal["pool", "index"] = Field(
        "pool",
        description="pointer: what each ICD must beat in training: its anchor's candidate pool, or the index set",
    )
    negatives: int = Field(
        4096, ge=1, description="pointer: rows of the index set drawn for each batch with contrast=index"
    )
    lr: float = Field(1e-4, gt=0, description="peak learning rate of AdamW (default 1e-3 for pointer)")
    weight_decay: float = Field(1e-3, ge=0, description="weight decay of AdamW")
    warmup: float = Field(
        0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises; cosine after"
    )
    batch_size: int = Field(64, ge=1, description="training rows in a batch, at most, on each device")
    epochs: int = Field(20, ge=1, description="passes over the training rows (default 10 for pointer)")
    val_fraction: float = Field(0.1, gt=0, lt=1, description="share of the queries held out for validation")
    validations_per_epoch: int = Field(2, ge=1, description="validations in each epoch, evenly spaced")
    threshold: float = Field(0.0, description="rows with a score below this are dropped (-inf keeps all)")
    reverse_seq: bool = Field(
        False, description="generate from the query outwards: the ICD next to the query comes first"
    )
    precision: str | None = Field(None, description="Lightning precision (default 16-mixed on CUDA, 32-true elsewhere)")
    trainer: dict[str, Any] = Field(default_factory=dict, description="further options of Lightning's Trainer")
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = Field((), description="loggers besides the CSV file")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_by_network(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        network = values.get("network", "gpt2")
        defaults = NETWORK_DEFAULTS.get(network, {}) if isinstance(network, str) else {}
        given = {key: value for key, value in values.items() if not (key in defaults and value is None)}
        return {**defaults, **given}

    @field_validator("loggers", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("trainer")
    @classmethod
    def _check_trainer(cls, value: dict[str, Any]) -> dict[str, Any]:
        reserved = sorted(RESERVED_TRAINER_OPTIONS & set(value))
        if reserved:
            raise ValueError(f"{', '.join(reserved)} cannot be set: the learner sets it itself")
        return {key: _scalar(item) for key, item in value.items()}

    @model_validator(mode="after")
    def _check_heads(self) -> LeverLMOptions:
        if self.network == "pointer" and not self.reads.icd:
            raise ValueError(f"the pointer network knows ICDs by their features, and variant {self.variant} reads none")
        if self.network != "lstm" and self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        return self

    @property
    def reads(self) -> Variant:
        return VARIANTS[self.variant]

    def identity(self) -> dict[str, Any]:
        """The options as JSON-ready values (an infinite threshold as text, which JSON has no number for)."""
        values: dict[str, Any] = self.model_dump(mode="json")
        if math.isinf(self.threshold):
            values["threshold"] = str(self.threshold)
        return values


def parse_options(values: dict[str, Any]) -> LeverLMOptions:
    """Checks options as users give them (values may be strings). Raises ConfigError that names the first wrong one."""
    try:
        return LeverLMOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, list(LeverLMOptions.model_fields), n=1)
            start = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(LeverLMOptions.model_fields)
            raise ConfigError(f"lever-lm has no option {name!r}", f"{start}known: {known}") from error
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"lever-lm option {name}: {what}" if name else f"lever-lm: {what}", "correct its value"
        ) from error


def _scalar(value: Any) -> Any:
    """A string as the number or truth value that it spells, if it does; options of a shell come as strings."""
    if not isinstance(value, str):
        return value
    lowered = value.strip().lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    if lowered in {"none", "null"}:
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
