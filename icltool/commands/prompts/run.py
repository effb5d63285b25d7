"""Prints the prompts of some queries as `icltool evaluate` writes them.

Reads: datasets/<name>/<task>/; embeddings/, checkpoints/, sequences/ and plan files if a method needs them; the model's
tokenizer, processor and configuration
Writes: nothing
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.settings import Setting, Settings
from icltool.commands.prompts.options import PromptsConfig
from icltool.contracts import (
    CountsTokens,
    HasTemplateOptions,
    HoldsConversations,
    LimitsTokens,
    Progress,
    Prompt,
    PromptRenderer,
    shown,
)
from icltool.engine.generation import generation_options
from icltool.errors import ConfigError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class QueryPrompt:
    """The prompt of one query in one setting. `text` has the paths of the images in the places of their markers. `tokens`
    is None if the tokenizer is not there, `messages` if the prompt is not a conversation."""

    query_id: int
    setting: Setting
    demonstration_ids: tuple[int, ...]
    prompt: Prompt
    text: str
    tokens: int | None
    messages: list[dict[str, Any]] | None

    def row(self) -> dict[str, object]:
        """The prompt for --json, under the names of `icltool evaluate`'s predictions."""
        key = self.setting.key
        row: dict[str, object] = {
            "query_id": self.query_id,
            "method": key.method,
            "shots": key.shots,
            "seed": key.seed,
            "icd_ids": list(self.demonstration_ids),
            "prompt": self.prompt.text,
            "images": list(self.prompt.images),
        }
        if self.tokens is not None:
            row["tokens"] = self.tokens
        if self.messages is not None:
            row["messages"] = self.messages
        return row

    def heading(self) -> str:
        """One line on what the prompt is of."""
        parts = [f"query {self.query_id}", self.setting.title]
        if self.demonstration_ids:
            parts.append(f"demonstrations {', '.join(map(str, self.demonstration_ids))}")
        if self.tokens is not None:
            parts.append(f"{self.tokens:,} tokens")
        return "; ".join(parts)


@dataclass(frozen=True)
class PromptsReport:
    """The prompts, query by query, and notes about them."""

    title: str
    prompts: tuple[QueryPrompt, ...]
    notes: tuple[str, ...]
    path: Path | None = None

    def rows(self) -> list[dict[str, object]]:
        return [prompt.row() for prompt in self.prompts]

    def lines(self) -> list[str]:
        return list(self.notes)

    def printout(self) -> str:
        """All prompts, each below its heading."""
        return "\n\n".join(f"--- {prompt.heading()} ---\n{prompt.text}" for prompt in self.prompts)


def run(config: PromptsConfig, progress: Progress) -> PromptsReport:
    """The prompts of each query in each setting, in the order of the queries.

    Raises StoreError if data, embeddings, a selector, sequences or a plan are missing; ConfigError for a query that does not
    exist, for a method that asks the model which demonstrations to show, and for a model that cannot write prompts without
    its weights; what choosing and writing raise.
    """
    config.check_model(progress)
    inputs = _inputs(config)
    settings = Settings(inputs)
    if asking := [group[0].method.label for group in settings.groups if group[0].asks]:
        raise ConfigError(
            f"{asking[0]} asks the model which demonstrations to show, so its prompts are known only once the model "
            "has run",
            "run `icltool evaluate`: it stores each prompt in predictions/*.jsonl",
        )
    renderers: dict[Path | None, PromptRenderer] = {}
    prompts: list[QueryPrompt] = []
    for setting in _distinct(settings):
        weights = setting.method.weights
        if weights not in renderers:
            renderers[weights] = config.prompt_renderer(**({} if weights is None else {"path": str(weights)}))
        prompts += _prompts_of(setting, settings, renderers[weights])
    prompts.sort(key=lambda prompt: prompt.query_id)  # stable: a query's settings stay in their order
    size = len(inputs.query_rows)
    title = (
        f"{inputs.dataset.name} ({inputs.task.name}), {config.model_name}, {size} {'query' if size == 1 else 'queries'}"
    )
    notes = [*settings.remarks, *_notes(config, settings, prompts, list(renderers.values()))]
    return PromptsReport(title, tuple(prompts), tuple(notes))


def _inputs(config: PromptsConfig) -> Inputs:
    """The inputs of the evaluation, with the queries to be printed alone."""
    drawn = config.query_id is None and config.queries == "validation"
    inputs = Inputs(config if drawn else config.model_copy(update={"test_size": -1}))
    if config.query_id is not None:
        rows = inputs.query_rows[inputs.queries.ids[inputs.query_rows] == config.query_id]
        if not len(rows):
            example = int(inputs.queries.ids[inputs.query_rows[0]])
            raise ConfigError(
                f"--query-id: {inputs.dataset.name} ({inputs.task.name}) has no {config.queries} query {config.query_id}",
                f"for example --query-id {example}",
            )
        inputs.query_rows = rows
    elif not drawn and config.test_size >= 0:
        inputs.query_rows = inputs.query_rows[: config.test_size]
    return inputs


def _distinct(settings: Settings) -> Iterator[Setting]:
    """All settings, without seeds that give a method the demonstrations of its first seed: they are answered once."""
    for first, *others in settings.groups:
        yield first
        for setting in others:
            if not np.array_equal(settings.demonstrations(setting), settings.demonstrations(first)):
                yield setting


def _prompts_of(setting: Setting, settings: Settings, renderer: PromptRenderer) -> Iterator[QueryPrompt]:
    inputs = settings.inputs
    queries = inputs.queries.rows(inputs.query_rows)
    chosen = [
        shown(inputs.index.rows(rows), query)
        for query, rows in zip(queries, settings.demonstrations(setting), strict=True)
    ]
    if not setting.shots:
        chosen = [list(demonstrations) for demonstrations in inputs.text_demonstrations(inputs.query_rows)]
    prompts = [
        replace(renderer.prompt(inputs.task, examples, query), target="")
        for query, examples in zip(queries, chosen, strict=True)
    ]
    counts: Sequence[int | None] = [None] * len(prompts)
    if isinstance(renderer, CountsTokens):
        counts = renderer.token_counts(prompts)
    for query, examples, prompt, tokens in zip(queries, chosen, prompts, counts, strict=True):
        messages = None
        if isinstance(renderer, HoldsConversations):
            messages = _with_paths(renderer.messages(inputs.task, examples, query), prompt.images)
        ids = tuple(dict.fromkeys(example.id for example in examples))  # one that follows another has its id
        text = _with_images(prompt, renderer.image_marker)
        yield QueryPrompt(query.id, setting, ids, prompt, text, tokens, messages)


def _with_images(prompt: Prompt, marker: str) -> str:
    """The prompt's text with [path] in the place of each marker; above the text if the model has no marker."""
    parts = prompt.text.split(marker) if marker else [prompt.text]
    if len(parts) != len(prompt.images) + 1:
        return "".join(f"[{path}]\n" for path in prompt.images) + prompt.text
    images = [*(f"[{path}]" for path in prompt.images), ""]
    return "".join(part + image for part, image in zip(parts, images, strict=True))


def _with_paths(messages: list[dict[str, Any]], images: Sequence[str]) -> list[dict[str, Any]]:
    """The messages with each image's path beside its type."""
    paths = iter(images)
    return [
        {**message, "content": [{**part, "path": next(paths)} if part["type"] == "image" else part for part in content]}
        for message in messages
        for content in [message["content"]]
    ]


def _notes(
    config: PromptsConfig, settings: Settings, prompts: Sequence[QueryPrompt], renderers: Sequence[PromptRenderer]
) -> list[str]:
    inputs, notes = settings.inputs, []
    notes += [
        f"{method.label} chooses for all queries of a call at once: with other queries these may get other demonstrations"
        for method in settings.methods
        if method.chain is not None and method.chain.joint
    ]
    for renderer in renderers:
        if isinstance(renderer, HasTemplateOptions) and renderer.template_options:
            values = " ".join(f"{name}={json.dumps(value)}" for name, value in renderer.template_options.items())
            notes.append(f"options of the chat template: {values}")
    if not all(isinstance(renderer, CountsTokens) for renderer in renderers):
        notes.append(f"tokens are not counted: the tokenizer of {config.model} is not on this machine")
    limits = [renderer.token_limit for renderer in renderers if isinstance(renderer, LimitsTokens)]
    limit = min((limit for limit in limits if limit is not None), default=None)
    if limit is not None:
        answer = 0
        if not inputs.task.ranked:
            answer = generation_options(config.generation(), inputs.task, renderers[0]).max_new_tokens
        too_long = sum(prompt.tokens is not None and prompt.tokens + answer > limit for prompt in prompts)
        if too_long:
            notes.append(
                f"{too_long} of {len(prompts)} prompts are too long: the model reads {limit:,} tokens, an answer of up to "
                f"{answer} included; use fewer shots"
            )
    return notes
