"""Options of `icltool prompts`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from icltool.commands.evaluate.options import EvaluateConfig


class PromptsConfig(EvaluateConfig):
    """Print the exact prompts of some queries, without running the model.

    Takes the options of `icltool evaluate`, chooses the same demonstrations and writes the same prompts, so any command line
    of evaluate works; options that concern answers and results have no effect. Reads the tokenizer, the processor and the
    configuration of the model, never its weights. Prints each prompt with the paths of its images in their places and its
    number of tokens. --json prints the text with the model's image markers, and the messages of chat models.

        icltool prompts --method i2i --shots 2
        icltool prompts --method random,mmr --shots 4 --query-id 139 --json
    """

    not_daily: ClassVar[frozenset[str]] = frozenset({"max_new_tokens", "batch_size", "metrics", "overwrite", "device"})

    test_size: int = Field(
        default=3,
        ge=-1,
        description="number of validation queries, the same as in `icltool evaluate`; -1 for all",
        json_schema_extra={"group": "Data", "daily": True, "aliases": ["--limit"], "hidden_in_artefact": True},
    )
    query_id: int | None = Field(
        default=None,
        description="print the prompts of this query only",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "default": "the queries of --test-size",
            "hidden_in_artefact": True,
        },
    )
