"""Options of the stages that let an LVLM write answers: how they are searched for."""

from __future__ import annotations

from pydantic import Field

from icltool.config.model import ModelConfig

#: Fields of icltool.contracts.GenerationOptions, by the name of the option.
FIELDS = ("max_new_tokens", "num_beams", "length_penalty", "min_new_tokens", "repetition_penalty", "no_repeat_ngram")


class GenerationConfig(ModelConfig):
    """The model, and how its answers are searched for. What is not given is the model's own way where it has one (captioners
    of published runs), else the task's."""

    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens generated at most; none: the model's own, else 20 for captions, 30 for inferences, 5 for vqa",
    )
    num_beams: int | None = Field(
        default=None, ge=1, description="beams over tokens in generation; none: the model's own, else 3"
    )
    length_penalty: float | None = Field(
        default=None, description="length penalty in generation; none: the model's own, else 0"
    )
    min_new_tokens: int | None = Field(
        default=None, ge=0, description="tokens generated at least; none: the model's own, else 0"
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        description="divides the scores of tokens that are there already; none: the model's own, else 1",
    )
    no_repeat_ngram: int | None = Field(
        default=None,
        ge=0,
        description="length of runs of tokens that no answer has twice; none: the model's own, else 0, which allows any",
    )

    def generation(self) -> dict[str, int | float]:
        """The options that were given, by the names of icltool.contracts.GenerationOptions."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}
