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
from icltool.contracts.options import made

#: What changes speed and files beside the weights, and not the weights.
_UNDECIDING = frozenset({"loggers", "workers", "reward_workers", "save_every"})
#: How captions are searched for in validation and scst.
_SEARCH = ("num_beams", "max_new_tokens", "min_new_tokens", "repetition_penalty")
#: Names under which a metric may be asked for besides its own.
_ALIASES = {"cider-d": "cider"}


class CaptionerOptions(LearnerOptions):
    """What is trained, on what, how fast and for how long. What is not given comes from the model's recipe for the task, and
    where that says nothing from here: these defaults are those of BLIP-2 (Li et al. 2023, appendix)."""

    epochs: int = Field(5, ge=1, description="passes over the training captions")
    batch_size: int = Field(16, ge=1, description="captions in a batch, on each device (with scst: images)")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are added up for a step")
    lr: float = Field(1e-5, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["blip2", "polynomial", "cosine", "constant"] = Field(
        "blip2",
        description="blip2: rises in the first epoch, then a cosine by epochs; polynomial: rises, then falls in a straight "
        "line; cosine and constant: by steps",
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises (not blip2)"
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="the same as a number of steps (blip2: of batches; none: 1000 there)"
    )
    warmup_lr: float = Field(0.0, ge=0, description="learning rate that the rise begins at")
    min_lr: float = Field(0.0, ge=0, description="learning rate at the end")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's decay rates of its averages")
    weight_decay: float = Field(0.05, ge=0, description="weight decay of AdamW; none on biases and 1-D parameters")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="learning rates x d^(layers + 1 - layer) where the model numbers its layers"
    )
    clip: float = Field(0.0, ge=0, description="largest norm of the gradient; 0 does not clip")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability that is spread over all tokens")
    freeze: tuple[str, ...] = Field((), description="parts of the model that are not trained; none for nothing")
    image_size: int | None = Field(None, ge=1, description="side of the images in pixels (default: the model's)")
    crop: Literal["resized", "random", "none"] = Field("none", description="how training images are cut")
    crop_scale: tuple[float, float] = Field((0.5, 1.0), description="share of the area that crop=resized keeps")
    shorter: int | None = Field(
        None, ge=1, description="length of the shorter side before crop=random cuts, in pixels (default: the model's)"
    )
    flip: bool = Field(False, description="mirror half of the images, but none whose text says left or right")
    captions: Literal["all", "first"] | None = Field(
        None,
        description="all: each reference of an example is learned; first: its label alone (default: all for captions, else "
        "first)",
    )
    max_target_tokens: int | None = Field(None, ge=1, description="longer captions are cut after so many tokens")
    max_train_size: int | None = Field(None, ge=1, description="examples that are learned from, at most, drawn by seed")
    itm: bool = Field(False, description="learn to tell whether a caption matches its image, as a second task")
    itm_alpha: float = Field(1.0, gt=0, description="weight of that task")
    itm_prompt: str | None = Field(
        None,
        description="its question, with {caption} and {style} (default: as published; without a style where there are none)",
    )
    scst: bool = Field(
        False, description="self-critical training: beams are rewarded by a metric. Needs a trained captioner"
    )
    scst_metric: str = Field("cider", description="metric that rewards")
    num_beams: int | None = Field(
        None, ge=1, description="beams of validation and scst (default: as the model searches)"
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="tokens of a caption there, at most (default: as the model searches)"
    )
    min_new_tokens: int | None = Field(None, ge=0, description="and at least (default: as the model searches)")
    repetition_penalty: float | None = Field(
        None,
        gt=0,
        description="what divides the scores of tokens that are there already (default: as the model searches)",
    )
    select: str | None = Field(
        None, description="what the best weights have most of: metrics, summed (cider+bleu-4), or the least loss"
    )
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    development_size: int = Field(5000, ge=1, description="development examples that are read, at most, drawn by seed")
    patience: int = Field(0, ge=0, description="stop after so many validations without a better one; 0 never")
    save_every: int = Field(0, ge=0, description="steps between states that can be gone on from; 0: after epochs only")
    workers: int = Field(0, ge=0, description="processes that read images; 0 reads them in this one")
    reward_workers: int = Field(1, ge=0, description="processes that compute rewards; 0 computes them in this one")
    grad_checkpointing: bool = Field(False, description="compute activations twice to hold fewer of them in memory")
    precision: str | None = Field(
        None,
        description="Lightning's precision (default: mixed precision of the kind that the model's weights are in; 32-true for "
        "float32)",
    )
    trainer: OwnTrainerOptions = Field(
        default_factory=dict, description="further options of Lightning's Trainer (--trainer devices=2, say)"
    )
    loggers: Loggers = Field((), description="loggers besides the CSV file")

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
            raise ValueError("both must be 0 or more and below 1")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _check_scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("two shares between 0 and 1, the smaller first")
        return value

    @field_validator("itm_prompt")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                value.format(caption="", style="")
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                raise ValueError("only {caption} and {style} can be filled in") from error
            if "{caption}" not in value:
                raise ValueError("{caption} must occur in it")
        return value

    @field_validator("select")
    @classmethod
    def _check_select(cls, value: str | None) -> str | None:
        names = [name.strip() for name in value.split("+")] if value is not None else ["loss"]
        if not all(names) or ("loss" in names and len(names) > 1):
            raise ValueError('metrics joined by "+" (cider+bleu-4), or loss')
        return value

    @model_validator(mode="after")
    def _check_rates(self) -> CaptionerOptions:
        if max(self.min_lr, self.warmup_lr) > self.lr:
            raise ValueError(
                f"min_lr ({self.min_lr:g}) and warmup_lr ({self.warmup_lr:g}) must not be above lr ({self.lr:g}); what was not "
                "given is the model's recipe"
            )
        return self

    def identity(self) -> dict[str, object]:
        """The options that decide the result, and which of them were given: the model's recipe may set the others."""
        return {**self.decided(), "given": sorted(self.model_fields_set - _UNDECIDING)}

    def decided(self) -> dict[str, object]:
        """The options that decide the result, JSON-ready, once the recipe is in them."""
        return self.model_dump(mode="json", exclude=set(_UNDECIDING))

    def searched(self, generation: GenerationOptions) -> GenerationOptions:
        """The search of validation and scst: the model's own, but for what was given."""
        given = {name: getattr(self, name) for name in _SEARCH}
        return replace(generation, **{name: value for name, value in given.items() if value is not None})

    def learned(self, task: Task) -> str:
        """Which captions are items: "all" or "first". With scst beams are learned from, and each image comes once."""
        return "first" if self.scst else self.captions or ("all" if task.answers == "captions" else "first")

    def chosen_by(self, task: Task) -> tuple[str, ...]:
        """Names of the metrics that the best weights are chosen by, or ("loss",)."""
        select = self.select or ("cider+bleu-4" if task.sentences and not task.ranked else "loss")
        return tuple(metric_name(name.strip()) for name in select.split("+"))


def metric_name(name: str) -> str:
    """The registered name of a metric."""
    return _ALIASES.get(name, name)


#: How the rate rises: a recipe's belong to its schedule.
_RISE = ("warmup", "warmup_steps", "warmup_lr")


def with_recipe(options: CaptionerOptions, recipe: Mapping[str, object]) -> CaptionerOptions:
    """Options that were not given are the recipe's. Its warm-up counts for nothing where another schedule, or another length
    of the warm-up, was given."""
    given = options.model_fields_set
    own_schedule = "schedule" in given and options.schedule != recipe.get("schedule")
    if own_schedule or given & {"warmup", "warmup_steps"}:
        kept = () if own_schedule else ("warmup_lr",)
        recipe = {name: value for name, value in recipe.items() if name not in _RISE or name in kept}
    given_values = {name: getattr(options, name) for name in given}
    return made("captioner", CaptionerOptions, {**recipe, **given_values})
