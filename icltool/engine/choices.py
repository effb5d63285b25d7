"""Answers of a classification: the most probable of a query's choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from icltool.contracts import (
    Example,
    ScoringRequest,
    ScoringSession,
    Task,
    choice_letters,
    choice_names,
    holds_images,
)
from icltool.errors import ConfigError, DataError


def rank_choices(session: ScoringSession, requests: Sequence[ScoringRequest]) -> list[dict[str, float]]:
    """For each request, the log-probability in nats of each of its query's choices by name (see `choice_names`), in their
    order: the mean per token, or the sum if the task's `rank_norm` says so. Of equal choices the larger counts.

    A choice is scored in the place of the query's label, with all that the prompt format lets follow a label: its text, or
    its letter if the task is `lettered`; without the query's rationale, which tells the answer. The perplexity of a choice is
    exp(-mean). All choices of all requests go to the session in one call. Raises DataError for a query without choices,
    ConfigError for one whose choices hold images where texts are ranked.
    """
    task = session.task if isinstance(session.task, Task) else None
    for request in requests:
        check_choices(task, request.query)
    labels = [_labels(task, request.query) for request in requests]
    one_per_choice = [
        replace(request, query=replace(request.query, label=label, rationale=""))
        for request, of_request in zip(requests, labels, strict=True)
        for label in of_request
    ]
    summed = task is not None and task.rank_norm == "sum"
    scores = session.target_scores(one_per_choice) if one_per_choice else []
    values = iter([score.log_prob if summed else score.mean for score in scores])
    return [_by_name(request.query, [next(values) for _ in ls]) for request, ls in zip(requests, labels, strict=True)]


def check_choices(task: Task | None, query: Example) -> None:
    """Raises DataError for a query without choices, ConfigError for one whose choices hold images where texts are ranked."""
    if not query.choices:
        raise DataError(
            f"query {query.id} has no choices to rank",
            "prepare the data set for the task 'classification', 'multiple-choice' or 'inference-choice'",
        )
    if holds_images(query) and (task is None or not task.lettered):
        raise ConfigError(
            f"query {query.id} has choices with images, which have no text to rank",
            "--rank-by letter ranks their letters, --rank-by generate has the model write one",
        )


def _labels(task: Task | None, query: Example) -> list[str]:
    """What stands for each choice in the place of the label: its name; where letters are ranked, the letter of a choice whose
    name others share."""
    names = choice_names(query)
    if task is None or not task.lettered:
        return list(names)
    letters = choice_letters(query)
    return [letter if names.count(name) > 1 else name for letter, name in zip(letters, names, strict=True)]


def _by_name(query: Example, values: Sequence[float]) -> dict[str, float]:
    largest: dict[str, float] = {}
    for name, value in zip(choice_names(query), values, strict=True):
        largest[name] = max(value, largest.get(name, value))
    return largest


def best_choice(log_probs: Mapping[str, float]) -> str:
    """The choice of the lowest perplexity, which is the answer; of equal ones the first. ValueError where none is."""
    return max(log_probs, key=lambda label: log_probs[label])
