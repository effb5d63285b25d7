"""Options of the commands that generate answers: how the model decodes them."""

from __future__ import annotations

from pydantic import Field

from icltool.config.model import ModelConfig

#: Fields of icltool.contracts.GenerationOptions, by the name of the option.
FIELDS = ("max_new_tokens", "num_beams", "length_penalty", "min_new_tokens", "repetition_penalty", "no_repeat_ngram")


class GenerationConfig(ModelConfig):
    """The model, and how it decodes answers. The default of an option is the model's own if it has one (captioners of published
    runs), else the task's."""

    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="maximum number of tokens to generate",
        json_schema_extra={
            "group": "Generation",
            "daily": True,
            "default": "the model's own, else 20 for captions, 30 for inferences and 5 for VQA",
        },
    )
    num_beams: int | None = Field(
        default=None,
        ge=1,
        description="beams of the beam search; 1 decodes greedily",
        json_schema_extra={"group": "Generation", "default": "the model's own, else 3"},
    )
    length_penalty: float | None = Field(
        default=None,
        description="length penalty of the beam search: above 0 favours longer answers, below 0 shorter ones",
        json_schema_extra={"group": "Generation", "default": "the model's own, else 0"},
    )
    min_new_tokens: int | None = Field(
        default=None,
        ge=0,
        description="minimum number of tokens to generate",
        json_schema_extra={"group": "Generation", "default": "the model's own, else 0"},
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        description="penalty on tokens that already occur: their scores are divided by it",
        json_schema_extra={"group": "Generation", "default": "the model's own, else 1, which is no penalty"},
    )
    no_repeat_ngram: int | None = Field(
        default=None,
        ge=0,
        description="length of the n-grams that may not occur twice in an answer; 0 allows any",
        json_schema_extra={"group": "Generation", "default": "the model's own, else 0"},
    )

    def generation(self) -> dict[str, int | float]:
        """The options that are set, by the names of icltool.contracts.GenerationOptions."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}
