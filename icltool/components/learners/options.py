"""What the options of learners share, and how their text values are parsed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict

from icltool.contracts import Options

#: Options of Lightning's Trainer that learners set themselves.
RESERVED_TRAINER_OPTIONS = frozenset(
    {"logger", "callbacks", "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "default_root_dir"}
)
#: Options of Lightning's Trainer that gradient-based learners of large models have under names of their own.
_OWN = {
    "max_epochs": "epochs",
    "accumulate_grad_batches": "accumulate",
    "gradient_clip_val": "clip",
    "precision": "precision",
}


class LearnerOptions(Options):
    """The options of a learner, or of several learners."""

    model_config = ConfigDict(validate_default=True)

    def identity(self) -> dict[str, object]:
        """The options that determine the result, including defaults, JSON-ready."""
        return self.model_dump(mode="json")


class OptionsLearner:
    """A learner that is built from its options."""

    name: ClassVar[str]
    options_model: ClassVar[type[LearnerOptions]]
    options: LearnerOptions

    def __init__(self, options: LearnerOptions) -> None:
        self.options = options

    def identity(self) -> dict[str, object]:
        """The resolved options, including defaults, JSON-ready."""
        return self.options.identity()


def names_of(value: object) -> object:
    """Comma-separated text as a tuple of its parts; anything else unchanged."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def scalar(value: object) -> object:
    """A string as the number or truth value that it spells, if any; options from a shell are strings."""
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


def trainer_options(values: dict[str, Any]) -> dict[str, Any]:
    """Options of Lightning's Trainer with strings parsed by `scalar`. Raises ValueError for options that
    learners set themselves."""
    reserved = sorted(RESERVED_TRAINER_OPTIONS & set(values))
    if reserved:
        raise ValueError(f"{', '.join(reserved)} cannot be set with --trainer: the learner sets these itself")
    return {key: scalar(item) for key, item in values.items()}


def own_trainer_options(values: dict[str, Any]) -> dict[str, Any]:
    """See `trainer_options`; also raises ValueError for options that the learner has under a name of its own."""
    for name in sorted(set(_OWN) & set(values)):
        raise ValueError(f"set {name} with the learner's option instead: --option {_OWN[name]}=…")
    return trainer_options(values)


def none_of(value: object) -> object:
    """The text "none" as None; anything else unchanged."""
    return None if value == "none" else value


#: Types of options that several learners have.
Loggers: TypeAlias = Annotated[tuple[Literal["tensorboard", "wandb"], ...], BeforeValidator(names_of)]
TrainerOptions: TypeAlias = Annotated[dict[str, Any], AfterValidator(trainer_options)]
OwnTrainerOptions: TypeAlias = Annotated[dict[str, Any], AfterValidator(own_trainer_options)]
