"""Options of the commands that generate answers: how the model decodes them."""

from __future__ import annotations

from pydantic import Field, model_validator

from icltool.config.model import ModelConfig
from icltool.contracts.json import Json

#: Fields of icltool.contracts.GenerationOptions, by the name of the option.
FIELDS = ("max_new_tokens", "num_beams", "length_penalty", "min_new_tokens", "repetition_penalty", "no_repeat_ngram",
          "temperature", "top_p", "sampling_seed")  # fmt: skip


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

    temperature: float | None = Field(
        default=None,
        ge=0,
        description="sample answers at this temperature instead of searching for the best one; 0 does not sample",
        json_schema_extra={"group": "Generation", "default": "0, which does not sample"},
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="sampling: draw only from the most probable tokens that together have this probability",
        json_schema_extra={"group": "Generation", "default": "1, which is all tokens"},
    )
    sampling_seed: int | None = Field(
        default=None,
        ge=0,
        description="sampling: seed of the random numbers; each query has numbers of its own, whatever the batch size and the "
        "number of workers",
        json_schema_extra={"group": "Generation", "default": "0"},
    )

    @model_validator(mode="after")
    def _sampling(self) -> GenerationConfig:
        if not self.temperature and (self.top_p is not None or self.sampling_seed is not None):
            flag = "--top-p" if self.top_p is not None else "--sampling-seed"
            raise ValueError(f"{flag} is an option of sampling: add --temperature, for example --temperature 0.7")
        if self.temperature and (self.num_beams or 1) > 1:
            raise ValueError(
                f"--temperature samples answers, and --num-beams {self.num_beams} searches: use one of them"
            )
        return self

    def identity(self) -> dict[str, Json]:
        """See StageConfig. Options of sampling are left out if they are not set, so that older files keep their identity."""
        values = super().identity()
        for name in ("temperature", "top_p", "sampling_seed"):
            if not self.temperature or values[name] is None:
                del values[name]
        return values

    def generation(self) -> dict[str, int | float]:
        """The options that are set, by the names of icltool.contracts.GenerationOptions."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}
