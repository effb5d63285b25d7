"""Options of `icltool prompts`."""

from __future__ import annotations

from pydantic import Field

from icltool.commands.evaluate.options import DemonstrationsConfig


class PromptsConfig(DemonstrationsConfig):
    """Print the exact prompts of some queries, without running a model.

    Chooses the demonstrations and writes the prompts exactly as `icltool evaluate` does with the same options. Of the model
    only the tokenizer, the processor and the configuration are read, never the weights. Each prompt is printed with the
    paths of its images in their places and its number of tokens; --json has the text with the model's own image markers,
    and the messages of chat models.

        icltool prompts --method i2i --shots 2

        icltool prompts --method random,mmr --shots 4 --query-id 139 --json
    """

    test_size: int = Field(
        default=3,
        ge=-1,
        description="queries to print the prompts of: those that `icltool evaluate` draws for the same number; -1 prints all",
        json_schema_extra={"group": "Data", "daily": True, "aliases": ["--limit"], "hidden_in_artefact": True},
    )
    query_id: int | None = Field(
        default=None,
        description="id of one query, in place of --test-size",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "default": "the queries of --test-size",
            "hidden_in_artefact": True,
        },
    )
