"""Answers of a classification: the most probable of a query's choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from icltool.contracts import ScoringRequest, ScoringSession
from icltool.errors import DataError


def rank_choices(session: ScoringSession, requests: Sequence[ScoringRequest]) -> list[dict[str, float]]:
    """For each request, the mean log-probability per token in nats of each of its query's choices, in their order.

    A choice is scored in the place of the query's label, with all that the prompt format lets follow a label. The
    perplexity of a choice is exp(-mean). All choices of all requests go to the session in one call. Raises DataError
    for a query without choices.
    """
    for request in requests:
        if not request.query.choices:
            raise DataError(
                f"query {request.query.id} has no choices to rank",
                "prepare the data set for the task 'classification' or 'inference-choice'",
            )
    one_per_choice = [
        replace(request, query=replace(request.query, label=label))
        for request in requests
        for label in request.query.choices
    ]
    scores = iter(session.target_scores(one_per_choice) if one_per_choice else [])
    return [{label: next(scores).mean for label in request.query.choices} for request in requests]


def best_choice(log_probs: Mapping[str, float]) -> str:
    """The choice of the lowest perplexity, which is the answer; of equal ones the first. ValueError where none is."""
    return max(log_probs, key=lambda label: log_probs[label])
