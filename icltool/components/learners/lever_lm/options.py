"""The options of the learner Lever-LM, and what its variants read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from icltool.components.learners.options import LearnerOptions, Loggers, TrainerOptions, names_of


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

#: The field of an index set that holds what each modality's embeddings are made of.
SOURCES = {"image": "images", "text": "texts"}

#: Defaults that depend on the network.
NETWORK_DEFAULTS: dict[str, dict[str, object]] = {
    "gpt2": {"n_embd": 512},
    "lstm": {"n_embd": 128},
    "pointer": {"n_embd": 128, "n_head": 4, "norm": True, "lr": 1e-3, "epochs": 10},
}


class LeverLMOptions(LearnerOptions):
    """All options that, with a training set and a seed, determine what Lever-LM learns."""

    model_config = ConfigDict(allow_inf_nan=True)

    variant: Literal[
        "query_img_icd_idx",
        "query_img_icd_img",
        "query_img_icd_text",
        "query_img_icd_img_text",
        "query_img_text_icd_img_text",
        "query_text_icd_text",
    ] = Field(
        "query_img_icd_img_text",
        description="embeddings that the model reads of the query and of in-context demonstrations (ICD): images (img) or "
        "texts; idx reads no embedding, only which example it is",
    )
    network: Literal["gpt2", "lstm", "pointer"] = Field(
        "gpt2",
        description="sequence model: gpt2 or lstm, as published, or pointer, which knows examples by their embeddings alone",
    )
    n_embd: int = Field(512, ge=1, description="width of the model; default 512 for gpt2, 128 for lstm and pointer")
    n_head: int = Field(8, ge=1, description="attention heads of gpt2 and pointer; default 8, for pointer 4")
    n_layer: int = Field(2, ge=1, description="number of layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate of all layers")
    n_positions: int = Field(
        256, ge=4, description="gpt2: maximum length of a sequence in tokens, which allows n_positions - 1 shots"
    )
    adapter: bool = Field(
        True,
        description="map embeddings through an MLP; without it, n_embd must equal the width of the embeddings. The pointer "
        "network always uses linear layers",
    )
    norm: bool = Field(False, description="L2-normalise the embeddings first; default true for pointer")
    projection: int = Field(
        64, ge=1, description="pointer: width of the space in which the next demonstration is searched for"
    )
    contrast: Literal["pool", "index"] = Field(
        "pool",
        description="pointer: negatives of a demonstration in training: the candidates of its anchor (pool), or the index set",
    )
    negatives: int = Field(
        4096, ge=1, description="pointer: negatives drawn from the index set per batch, with contrast=index"
    )
    freeze: tuple[Literal["image", "text"], ...] = Field(
        ("image", "text"),
        description="towers of CLIP that are not trained and whose stored embeddings are read; none trains both",
    )
    encoder_lr: float | None = Field(
        None,
        gt=0,
        description="peak learning rate of the trained towers of CLIP; default: lr, as in the published code",
    )
    grad_checkpointing: bool = Field(
        False,
        description="recompute activations of a trained CLIP in the backward pass, which saves memory and takes longer",
    )
    from_images: bool = Field(
        False,
        description="run frozen towers in every step instead of reading stored embeddings: slower, with the same losses",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="threads that read images ahead; default: one per CPU, at most 16. Does not change the result",
    )
    lr: float = Field(1e-4, gt=0, description="peak learning rate of AdamW; default 1e-3 for pointer")
    weight_decay: float = Field(1e-3, ge=0, description="weight decay of AdamW")
    warmup: float = Field(
        0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises, before it falls by a cosine"
    )
    batch_size: int = Field(64, ge=1, description="maximum number of training sequences per batch on each device")
    epochs: int = Field(20, ge=1, description="number of passes over the training sequences; default 10 for pointer")
    val_fraction: float = Field(0.1, gt=0, lt=1, description="share of the anchors held out for validation")
    validations_per_epoch: int = Field(2, ge=1, description="validations per epoch, evenly spaced")
    threshold: float = Field(0.0, description="minimum score of a training sequence; -inf keeps all")
    reverse_seq: bool = Field(
        False, description="generate from the query outwards: the demonstration next to the query comes first"
    )
    precision: str | None = Field(
        None, description="precision of Lightning's Trainer; default: 16-mixed on CUDA, else 32-true"
    )
    trainer: TrainerOptions = Field(
        default_factory=dict, description="further options of Lightning's Trainer, such as --trainer devices=2"
    )
    loggers: Loggers = Field((), description="loggers in addition to the CSV file")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_by_network(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        network = values.get("network", cls.model_fields["network"].default)
        defaults = NETWORK_DEFAULTS.get(network, {}) if isinstance(network, str) else {}
        own = {key: value for key, value in values.items() if not (key in defaults and value is None)}
        return {**defaults, **own}

    @field_validator("freeze", mode="before")
    @classmethod
    def _split_towers(cls, value: object) -> object:
        names = names_of(value)
        if names == ("none",):
            return ()
        return tuple(sorted(set(names))) if isinstance(names, (tuple, list)) else names

    @model_validator(mode="after")
    def _check_heads(self) -> LeverLMOptions:
        if self.network == "pointer" and not self.reads.icd:
            raise ValueError(
                f"the pointer network needs embeddings of demonstrations, which variant {self.variant} does not read"
            )
        if self.network != "lstm" and self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        return self

    @model_validator(mode="after")
    def _check_contrast(self) -> LeverLMOptions:
        if self.network == "pointer" and self.contrast == "index" and self.encoded:
            raise ValueError("contrast=index would encode thousands of examples per step: use contrast=pool")
        return self

    @property
    def reads(self) -> Variant:
        return VARIANTS[self.variant]

    @property
    def trained(self) -> frozenset[str]:
        """The modalities whose CLIP tower is trained."""
        return self.reads.needs - set(self.freeze)

    @property
    def encoded(self) -> frozenset[str]:
        """The modalities whose tower runs in every training step."""
        return self.reads.needs if self.from_images else self.trained

    @property
    def decoding_needs(self) -> frozenset[str]:
        """The parts of an index set that a trained selector reads: stored embeddings, or images and texts for its towers."""
        return frozenset(SOURCES[m] if m in self.trained else m for m in self.reads.needs)

    @property
    def training_needs(self) -> frozenset[str]:
        """The parts that training reads, including `encoder` if a tower runs."""
        return self.decoding_needs | {SOURCES[m] for m in self.encoded} | ({"encoder"} if self.encoded else set())

    def identity(self) -> dict[str, object]:
        """The options that determine the result, as JSON-ready values (an infinite threshold as text, since JSON has no number
        for)."""
        values: dict[str, object] = self.model_dump(mode="json", exclude={"workers"})
        if math.isinf(self.threshold):
            values["threshold"] = str(self.threshold)
        return values


class PointerOptions(LeverLMOptions):
    """LeverLMOptions of the pointer network."""

    network: Literal["pointer"] = Field(
        "pointer",
        description="network, always pointer; `icltool train lever-lm --option network=NAME` trains the others",
    )
