"""What each setting costs per query, beside what it achieves."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

from icltool.contracts import IntArray, ScoringRequest, keyed_generator
from icltool.engine.query_cost import query_cost
from icltool.evaluation.answering import Answerer
from icltool.evaluation.settings import Setting, Settings

#: Queries that are answered alone for each setting, the same for all.
SAMPLE = 8


def wanted(settings: Settings) -> bool:
    """Whether costs are measured: as asked for, else where a method stands in for demonstrations."""
    asked = settings.inputs.config.cost
    return any(method.intervention is not None for method in settings.methods) if asked is None else asked


def sample(count: int) -> IntArray:
    """int64: positions of the queries that are measured, ascending."""
    return np.sort(keyed_generator(0, "evaluate.cost").permutation(count)[:SAMPLE]).astype(np.int64)


def measured(answerer: Answerer, settings: Settings, setting: Setting) -> dict[str, Any]:
    """The setting's cost as results keep it: {"queries", "device", "prompt_tokens", "flops", "seconds"}; "uncounted" names
    what FLOPs are without. Raises ConfigError where a prompt alone does not fit in memory."""
    inputs, intervention = settings.inputs, setting.method.intervention
    places = sample(len(inputs.query_rows))
    chosen = settings.demonstrations(setting)[places]
    queries = inputs.queries.rows(inputs.query_rows[places])
    requests = [ScoringRequest(q, tuple(inputs.index.rows(row))) for q, row in zip(queries, chosen, strict=True)]
    session = answerer.session()
    counts = inputs.config.quantization is None  # kernels for packed weights are counted by nobody
    title = f"cost of {setting.title}"
    with (
        nullcontext() if intervention is None else session.steered(intervention),
        answerer.progress.task(title, len(requests), "queries") as ticker,
    ):
        found = query_cost(session, requests, inputs.task.ranked, counts, lambda: ticker.advance(1))
    uncounted = {"uncounted": "attention"} if inputs.config.attention == "flash_attention_2" and counts else {}
    return {**asdict(found), **uncounted}
