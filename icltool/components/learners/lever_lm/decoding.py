"""Decoding demonstration sequences: greedily, or with beams over whole sequences.

Computed in float64, with scores rounded before they are compared: so no choice depends on the batch size, and ties go to the
lowest row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from icltool.components.learners.lever_lm.model import Features, SelectorModel
from icltool.components.learners.lever_lm.pointer import PointerModel

#: Decimals to which scores are rounded for comparison; another batch size changes them far less.
DECIMALS = 9
#: Index sets from this size on are searched with faiss.
SEARCH_FROM = 4096
#: Neighbours fetched beyond the number of closed rows.
MARGIN = 16
#: Scores that beam search computes at once on a CPU, so that they fit into its caches and are reused by the allocator.
BLOCK_CELLS = 1 << 21


class NextRow(Protocol):
    """Finds the best allowed row for each hidden state."""

    def best(self, hidden: Tensor, closed: Tensor) -> Tensor:
        """int64 [B] for hidden states [B, E]; rows in `closed` bool [B, n] must not be chosen."""
        ...


class EveryRow:
    """Scores every row of the index set."""

    def __init__(self, model: SelectorModel, targets: Tensor) -> None:
        self._model, self._targets = model, targets

    def best(self, hidden: Tensor, closed: Tensor) -> Tensor:
        scores = self._model.scores(hidden, self._targets).round_(decimals=DECIMALS)
        return scores.masked_fill_(closed, -torch.inf).argmax(-1)


class NearestKey:
    """A pointer's choice as a nearest-neighbour search: faiss finds candidates in float32, and float64 decides.

    Gives the same result as EveryRow, which handles queries whose candidates are too close to decide.
    """

    def __init__(self, model: PointerModel, keys: Tensor) -> None:
        self._model, self._keys = model, keys
        self._single = keys.float().numpy()
        self._plain = EveryRow(model, keys)
        self._error = 4 * keys.shape[1] * 2.0**-23  # a generous bound for a float32 product of unit vectors

    def best(self, hidden: Tensor, closed: Tensor) -> Tensor:
        import faiss

        fetch = int(closed.sum(-1).max()) + MARGIN
        if fetch >= len(self._keys):
            return self._plain.best(hidden, closed)
        pointing, scale = self._model.pointing(hidden), self._model.log_scale.exp()
        cosines_float32, labels = faiss.knn(
            pointing.float().numpy(), self._single, fetch, metric=faiss.METRIC_INNER_PRODUCT
        )
        rows = torch.from_numpy(labels).sort(-1).values  # by row, so that the first of equal scores is the lowest row
        cosines = (self._keys[rows] * pointing.unsqueeze(1)).sum(-1)
        scores = (scale * cosines).round(decimals=DECIMALS).masked_fill_(closed.gather(1, rows), -torch.inf)
        places = scores.argmax(-1, keepdim=True)
        chosen, best = rows.gather(1, places).squeeze(1), scores.gather(1, places).squeeze(1)
        floor = scale * (torch.from_numpy(cosines_float32[:, -1]).double() + self._error)
        doubtful = best <= floor
        if doubtful.any():
            chosen[doubtful] = self._plain.best(hidden[doubtful], closed[doubtful])
        return chosen


def next_row(model: SelectorModel, targets: Tensor) -> NextRow:
    """The search for this model, size of index set and device."""
    if isinstance(model, PointerModel) and len(targets) >= SEARCH_FROM and targets.device.type == "cpu":
        return NearestKey(model, targets)
    return EveryRow(model, targets)


def greedy(
    model: SelectorModel, query: Features, table: Features, tokens: Tensor, search: NextRow, closed: Tensor, shots: int
) -> Tensor:
    """Rows int64 [B, shots] in the order of generation. Rows in `closed` bool [B, n] (modified) must not be chosen."""
    hidden, state = model.advance(model.start_embedding(query), keep=True)
    chosen: list[Tensor] = []
    for step in range(shots):
        choice = search.best(hidden[:, -1], closed)
        chosen.append(choice)
        closed.scatter_(1, choice.unsqueeze(1), True)
        if step + 1 < shots:
            embedded = model.icd_embedding(tokens[choice][:, None], _features(table, choice[:, None]))
            hidden, state = model.advance(embedded, state, keep=True)
    return torch.stack(chosen, 1)


def beam(
    model: SelectorModel,
    query: Features,
    table: Features,
    tokens: Tensor,
    targets: Tensor,
    closed: Tensor,
    shots: int,
    beams: int,
) -> Tensor:
    """Rows int64 [B, shots] of the sequence with the largest summed log-probability that `beams` hypotheses find.

    A step's probabilities are over the rows that are still allowed. Ties go to the hypothesis that ranked higher before, then
    to the lower row. Each step reads one ICD per hypothesis; the model's state contains the previous ones.
    """
    batch, examples = closed.shape
    hidden, state = model.advance(model.start_embedding(query), keep=True)
    first = torch.arange(batch, device=closed.device).unsqueeze(1)
    rows = torch.empty((batch, 1, 0), dtype=torch.int64, device=closed.device)
    sums = torch.zeros((batch, 1), dtype=torch.float64, device=closed.device)
    for step in range(shots):
        held = rows.shape[1]
        order, sums = _extensions(model, hidden[:, -1].view(batch, held, -1), targets, closed, rows, sums, beams)
        parents, choices = order // examples, order % examples
        before = rows.gather(1, parents.unsqueeze(-1).expand(-1, -1, step))
        rows = torch.cat([before, choices.unsqueeze(-1)], 2)
        if step + 1 < shots:
            state = model.selected(state, (first * held + parents).flatten())
            chosen = choices.flatten().unsqueeze(1)
            embedded = model.icd_embedding(tokens[chosen], _features(table, chosen))
            hidden, state = model.advance(embedded, state, keep=True)
    return rows[:, 0]


def _extensions(
    model: SelectorModel, hidden: Tensor, targets: Tensor, closed: Tensor, rows: Tensor, sums: Tensor, beams: int
) -> tuple[Tensor, Tensor]:
    """The best extensions of each query's H hypotheses: hypothesis times n plus row, int64 [B, W] with W at most `beams`,
    and their summed log-probabilities [B, W].

    `hidden` [B, H, E], `rows` int64 [B, H, K] and `sums` [B, H] are the hypotheses so far, `closed` bool [B, n].
    """
    (batch, held), examples = sums.shape, closed.shape[1]
    block = max(1, BLOCK_CELLS // (held * examples)) if closed.device.type == "cpu" else batch
    orders, totals = [], []
    for start in range(0, batch, block):
        part = slice(start, start + block)
        shut = closed[part].repeat_interleave(held, 0).scatter_(1, rows[part].flatten(0, 1), True)
        scores = model.scores(hidden[part].flatten(0, 1), targets).masked_fill_(shut, -torch.inf)
        extended = scores.log_softmax(-1).view(-1, held, examples).add_(sums[part].unsqueeze(-1)).flatten(1)
        orders.append(first_largest(extended, beams))
        totals.append(extended.gather(1, orders[-1]))
    return torch.cat(orders), torch.cat(totals)


def first_largest(values: Tensor, count: int) -> Tensor:
    """int64 [B, min(count, M)]: the positions of the largest of `values` [B, M], rounded to DECIMALS, in descending order; ties
    go to the first.

    Equals the beginning of a stable sort of everything, at the cost of a partial sort if there are few ties.
    """
    if count + MARGIN >= values.shape[1]:
        return values.round(decimals=DECIMALS).sort(descending=True, stable=True).indices[:, :count]
    top, places = values.topk(count + MARGIN)
    places = places.sort(-1).values
    order = values.gather(1, places).round(decimals=DECIMALS).sort(descending=True, stable=True).indices
    places = places.gather(1, order[:, :count])
    last = top[:, [count - 1, -1]].round(decimals=DECIMALS)
    cut = last[:, 0] == last[:, 1]  # there may be more ties with the last one than were fetched
    if cut.any():
        places[cut] = values[cut].round(decimals=DECIMALS).sort(descending=True, stable=True).indices[:, :count]
    return places


def _features(table: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The ICDs' features in float64 on the rows' device, [B, K, D] by modality."""
    return {m: values[rows.to(values.device)].to(rows.device, torch.float64) for m, values in table.items()}


def closed_rows(rows: list[np.ndarray], examples: int) -> Tensor:
    """bool [B, n], true at each list's rows."""
    closed = np.zeros((len(rows), examples), dtype=bool)
    for place, listed in enumerate(rows):
        closed[place, listed] = True
    return torch.from_numpy(closed)
