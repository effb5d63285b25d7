"""Decoding as the definitions have it: every step reads the whole sequence from its start, and sorts every score."""

from __future__ import annotations

import torch
from torch import Tensor

from icltool.components.learners.lever_lm.decoding import DECIMALS
from icltool.components.learners.lever_lm.model import Features, SelectorModel


def plain_greedy(
    model: SelectorModel, query: Features, table: Features, tokens: Tensor, targets: Tensor, closed: Tensor, shots: int
) -> Tensor:
    """As `greedy`; `closed` stays as it is."""
    rows = torch.empty((len(closed), 0), dtype=torch.int64)
    for _ in range(shots):
        scores = model.scores(_last_hidden(model, query, table, tokens, rows), targets).round(decimals=DECIMALS)
        choice = scores.masked_fill(closed.scatter(1, rows, True), -torch.inf).argmax(-1, keepdim=True)
        rows = torch.cat([rows, choice], 1)
    return rows


def plain_beam(
    model: SelectorModel,
    query: Features,
    table: Features,
    tokens: Tensor,
    targets: Tensor,
    closed: Tensor,
    shots: int,
    beams: int,
) -> Tensor:
    """As `beam`."""
    batch, examples = closed.shape
    rows = torch.empty((batch, 1, 0), dtype=torch.int64)
    sums = torch.zeros((batch, 1), dtype=torch.float64)
    for step in range(shots):
        held, flat = rows.shape[1], rows.flatten(0, 1)
        queries = {m: values.repeat_interleave(held, 0) for m, values in query.items()}
        shut = closed.repeat_interleave(held, 0).scatter(1, flat, True)
        scores = model.scores(_last_hidden(model, queries, table, tokens, flat), targets).masked_fill(shut, -torch.inf)
        totals = (sums.unsqueeze(-1) + scores.log_softmax(-1).view(batch, held, examples)).flatten(1)
        order = totals.round(decimals=DECIMALS).sort(descending=True, stable=True).indices[:, :beams]
        sums = totals.gather(1, order)
        before = rows.gather(1, (order // examples).unsqueeze(-1).expand(-1, -1, step))
        rows = torch.cat([before, (order % examples).unsqueeze(-1)], 2)
    return rows[:, 0]


def _last_hidden(model: SelectorModel, query: Features, table: Features, tokens: Tensor, rows: Tensor) -> Tensor:
    """[B, E] after the queries' features [B, D] and the ICDs in `rows` int64 [B, K]."""
    embedded = model.start_embedding(query)
    if rows.shape[1]:
        read = {m: values[rows].double() for m, values in table.items()}
        embedded = torch.cat([embedded, model.icd_embedding(tokens[rows], read)], 1)
    return model.advance(embedded)[0][:, -1]
