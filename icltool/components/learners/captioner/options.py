"""The options of the learner `captioner`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field, field_validator, model_validator

from icltool.components.learners.options import (
    LearnerOptions,
    Loggers,
    OwnTrainerOptions,
    names_of,
    none_of,
)
from icltool.contracts import GenerationOptions, Task
from icltool.contracts.options import options_from

#: What changes speed and files beside the weights, and not the weights.
_UNDECIDING = frozenset({"loggers", "workers", "reward_workers", "save_every"})
#: How captions are searched for in validation and scst.
_SEARCH = ("num_beams", "max_new_tokens", "min_new_tokens", "repetition_penalty")
#: Names under which a metric may be asked for besides its own.
_ALIASES = {"cider-d": "cider"}


class CaptionerOptions(LearnerOptions):
    """All options of fine-tuning a captioner. An option that is not set takes the value of the model's recipe for the task,
    else the default here, which is that of BLIP-2 (Li et al. 2023, appendix)."""

    epochs: int = Field(5, ge=1, description="number of passes over the training captions")
    batch_size: int = Field(16, ge=1, description="captions (with scst, images) per batch on each device")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are accumulated for one optimiser step")
    lr: float = Field(1e-5, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["blip2", "polynomial", "cosine", "constant"] = Field(
        "blip2",
        description="learning rate over the training: blip2 rises in the first epoch, then falls by a cosine of epochs; "
        "polynomial rises, then falls linearly; cosine and constant go by steps",
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises (not for blip2)"
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description="steps in which the learning rate rises, instead of warmup; for blip2 batches; default: 1000 for blip2",
    )
    warmup_lr: float = Field(0.0, ge=0, description="initial learning rate of the warm-up")
    min_lr: float = Field(0.0, ge=0, description="final learning rate")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay rates of the averages of AdamW")
    weight_decay: float = Field(0.05, ge=0, description="weight decay of AdamW; biases and 1-D parameters have none")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor d of the learning rates of layers, d^(layers + 1 - layer), for models that number their layers",
    )
    clip: float = Field(0.0, ge=0, description="maximum norm of the gradient; 0 turns clipping off")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="label smoothing: probability that is spread over all tokens"
    )
    freeze: tuple[str, ...] = Field((), description="parts of the model that are not trained; none trains all parts")
    image_size: int | None = Field(None, ge=1, description="side of the images in pixels; default: the model's")
    crop: Literal["resized", "random", "none"] = Field(
        "none", description="how training images are cropped: a random part that is resized, a random square, or not"
    )
    crop_scale: tuple[float, float] = Field(
        (0.5, 1.0), description="range of the share of the area that crop=resized keeps"
    )
    shorter: int | None = Field(
        None, ge=1, description="length of the shorter side before crop=random, in pixels; default: the model's"
    )
    flip: bool = Field(False, description="mirror half of the images, except those whose text contains left or right")
    captions: Literal["all", "first"] | None = Field(
        None,
        description="learn all references of an example, or only its label (first); default: all for captions, else first",
    )
    max_target_tokens: int | None = Field(
        None, ge=1, description="maximum number of tokens of a training caption; longer ones are cut"
    )
    max_train_size: int | None = Field(None, ge=1, description="maximum number of training examples, drawn at random")
    itm: bool = Field(
        False, description="train image-text matching as a second task: whether a caption matches its image"
    )
    itm_alpha: float = Field(1.0, gt=0, description="weight of image-text matching")
    itm_prompt: str | None = Field(
        None,
        description="question of image-text matching, with {caption} and {style}; default: the published one, without "
        "a style if the data has none",
    )
    scst: bool = Field(
        False,
        description="self-critical sequence training: beams are rewarded by a metric. Start from a trained captioner",
    )
    scst_metric: str = Field("cider", description="metric that rewards beams in scst")
    num_beams: int | None = Field(None, ge=1, description="beams in validation and scst; default: the model's own")
    max_new_tokens: int | None = Field(
        None, ge=1, description="maximum number of tokens of a caption in validation and scst; default: the model's own"
    )
    min_new_tokens: int | None = Field(
        None, ge=0, description="minimum number of tokens of a caption in validation and scst; default: the model's own"
    )
    repetition_penalty: float | None = Field(
        None,
        gt=0,
        description="penalty on tokens that already occur, in validation and scst; default: the model's own",
    )
    select: str | None = Field(
        None,
        description="how to choose the best weights: by the sum of metrics (cider+bleu-4), or by loss; default: cider+bleu-4 "
        "for sentences, else loss",
    )
    validate_every: int = Field(1, ge=1, description="number of epochs between validations")
    development_size: int = Field(5000, ge=1, description="maximum number of development examples, drawn at random")
    patience: int = Field(
        0, ge=0, description="number of validations without improvement after which training stops; 0 never stops early"
    )
    save_every: int = Field(
        0,
        ge=0,
        description="number of steps between the states that training can resume from; 0 saves after epochs only",
    )
    workers: int = Field(0, ge=0, description="processes that read images; 0 reads them in this process")
    reward_workers: int = Field(1, ge=0, description="processes that compute rewards; 0 computes them in this process")
    grad_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass, which saves memory and takes longer"
    )
    precision: str | None = Field(
        None,
        description="precision of Lightning's Trainer; default: mixed precision in the dtype of the weights, or 32-true "
        "for float32",
    )
    trainer: OwnTrainerOptions = Field(
        default_factory=dict, description="further options of Lightning's Trainer, such as --trainer devices=2"
    )
    loggers: Loggers = Field((), description="loggers in addition to the CSV file")

    @field_validator("betas", "crop_scale", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return names_of(value)

    @field_validator("freeze", mode="before")
    @classmethod
    def _parts(cls, value: object) -> object:
        names = names_of(value)
        return () if names in (None, ("none",), ["none"]) else names

    @field_validator(
        "warmup_steps", "image_size", "shorter", "max_target_tokens", "max_train_size", "captions", "itm_prompt", "select",
        *_SEARCH, mode="before",
    )  # fmt: skip
    @classmethod
    def _none(cls, value: object) -> object:
        return none_of(value)

    @field_validator("clip", mode="before")
    @classmethod
    def _no_clipping(cls, value: object) -> object:
        return 0.0 if value in (None, "none") else value

    @field_validator("betas")
    @classmethod
    def _check_betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("must be two numbers of at least 0 and below 1")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _check_scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("must be two shares above 0 and at most 1, the smaller first")
        return value

    @field_validator("itm_prompt")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                value.format(caption="", style="")
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                raise ValueError("the only placeholders are {caption} and {style}") from error
            if "{caption}" not in value:
                raise ValueError("must contain {caption}")
        return value

    @field_validator("select")
    @classmethod
    def _check_select(cls, value: str | None) -> str | None:
        names = [name.strip() for name in value.split("+")] if value is not None else ["loss"]
        if not all(names) or ("loss" in names and len(names) > 1):
            raise ValueError('must be metrics joined by "+", such as cider+bleu-4, or loss')
        return value

    @model_validator(mode="after")
    def _check_rates(self) -> CaptionerOptions:
        if max(self.min_lr, self.warmup_lr) > self.lr:
            raise ValueError(
                f"min_lr ({self.min_lr:g}) and warmup_lr ({self.warmup_lr:g}) must not be above lr ({self.lr:g}); values that "
                "are not set come from the model's recipe"
            )
        return self

    def identity(self) -> dict[str, object]:
        """The options that determine the result, and which of them were set: the model's recipe may set the others."""
        return {**self.decided(), "given": sorted(self.model_fields_set - _UNDECIDING)}

    def decided(self) -> dict[str, object]:
        """The options that determine the result, JSON-ready, after the recipe was applied."""
        return self.model_dump(mode="json", exclude=set(_UNDECIDING))

    def searched(self, generation: GenerationOptions) -> GenerationOptions:
        """The search options of validation and scst: those of the model, overridden by those that were set."""
        values = {name: getattr(self, name) for name in _SEARCH}
        return replace(generation, **{name: value for name, value in values.items() if value is not None})

    def learned(self, task: Task) -> str:
        """Which captions are items: "all" or "first". With scst the model learns from beams, and each image occurs once."""
        return "first" if self.scst else self.captions or ("all" if task.answers == "captions" else "first")

    def chosen_by(self, task: Task) -> tuple[str, ...]:
        """The names of the metrics by which the best weights are chosen, or ("loss",)."""
        select = self.select or ("cider+bleu-4" if task.sentences and not task.ranked else "loss")
        return tuple(metric_name(name.strip()) for name in select.split("+"))


def metric_name(name: str) -> str:
    """The registered name of a metric."""
    return _ALIASES.get(name, name)


#: How the rate rises: a recipe's belong to its schedule.
_RISE = ("warmup", "warmup_steps", "warmup_lr")


def with_recipe(options: CaptionerOptions, recipe: Mapping[str, object]) -> CaptionerOptions:
    """Fills in options that were not set from the recipe. Its warm-up is ignored if another schedule, or another length
    of the warm-up, was set."""
    set_by_user = options.model_fields_set
    own_schedule = "schedule" in set_by_user and options.schedule != recipe.get("schedule")
    if own_schedule or set_by_user & {"warmup", "warmup_steps"}:
        still_valid = () if own_schedule else ("warmup_lr",)
        recipe = {name: value for name, value in recipe.items() if name not in _RISE or name in still_valid}
    values = {name: getattr(options, name) for name in set_by_user}
    return options_from("captioner", CaptionerOptions, {**recipe, **values})
