"""Training rows: token arrays of scored sequences, the split by query, and seeded batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from icltool.contracts import IntArray, TrainingSet, keyed_generator
from icltool.errors import ConfigError, DataError

#: Label of positions that do not count in the loss.
IGNORED = -100


@dataclass(frozen=True)
class Vocabulary:
    """The index set as vocabulary: tokens 0 … examples - 1 are its rows, three special tokens follow."""

    examples: int

    @property
    def eos(self) -> int:
        return self.examples

    @property
    def bos(self) -> int:
        return self.examples + 1

    @property
    def query(self) -> int:
        return self.examples + 2

    def __len__(self) -> int:
        return self.examples + 3


@dataclass(frozen=True)
class Rows:
    """R rows of length L = K + 3: [BOS, QUERY, icd_1 … icd_K, EOS], short ones padded with EOS.

    `tokens` and `labels` int64 [R, L]; a label is the token itself, or IGNORED after the row's own EOS. `queries`
    int64 [R] are the queries' rows of the index set; `pools` int64 [R, C] the candidates' rows, padded with -1 (C is 0 if
    pools are unknown).
    """

    tokens: Tensor
    labels: Tensor
    queries: Tensor
    pools: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass  # not frozen: with precisions such as bf16-true Lightning sets the fields of copies
class Batch:
    """Some of the rows, as in Rows. Lightning moves it between devices through `to`."""

    tokens: Tensor
    labels: Tensor
    queries: Tensor
    pools: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        parts = (self.tokens, self.labels, self.queries, self.pools)
        return Batch(*(part.to(device, non_blocking=non_blocking) for part in parts))


def build_rows(
    query_rows: IntArray, icd_rows: IntArray, vocabulary: Vocabulary, reverse: bool, pools: IntArray | None = None
) -> Rows:
    """The sequences as token rows. Shorter rows of `icd_rows` [R, K] are padded with -1.

    `reverse` reverses each sequence. Raises ValueError for rows outside the index set, empty rows, or -1 before an ICD.
    """
    count, width = icd_rows.shape
    columns = np.arange(width)
    lengths = (icd_rows >= 0).sum(axis=1)
    present = columns < lengths[:, None]
    if (lengths == 0).any() or not np.array_equal(present, icd_rows >= 0):
        raise ValueError("each row of icd_rows must have at least one ICD, and -1 only after the last")
    if max(icd_rows.max(initial=0), query_rows.max(initial=0)) >= vocabulary.examples or query_rows.min(initial=0) < 0:
        raise ValueError("query_rows and icd_rows must be rows of the index set")
    if reverse:
        icd_rows = np.take_along_axis(icd_rows, np.where(present, lengths[:, None] - 1 - columns, columns), axis=1)
    tokens = np.full((count, width + 3), vocabulary.eos, dtype=np.int64)
    tokens[:, 0], tokens[:, 1] = vocabulary.bos, vocabulary.query
    tokens[:, 2 : 2 + width] = np.where(present, icd_rows, vocabulary.eos)
    labels = np.where(np.arange(width + 3) <= 2 + lengths[:, None], tokens, IGNORED)
    if pools is None:
        pools = np.empty((count, 0), dtype=np.int64)
    arrays = (tokens, labels, query_rows.astype(np.int64), pools.astype(np.int64))
    return Rows(*(torch.from_numpy(array) for array in arrays))


def split_by_query(query_ids: IntArray, fraction: float, seed: int) -> IntArray:
    """The ids of the queries held out for validation: a share `fraction` of the distinct ones, at least one, but not all.

    The draw is keyed by each query's id. Raises DataError for fewer than two queries.
    """
    distinct = np.unique(query_ids)
    if len(distinct) < 2:
        raise DataError(
            f"training needs sequences of at least two queries, one of them for validation, but only {len(distinct)} is left",
            "generate sequences for more anchors, or lower the threshold",
        )
    drawn = np.array([keyed_generator(seed, "lever-lm.split", int(query)).random() for query in distinct])
    held_out = min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)
    chosen: IntArray = np.sort(distinct[np.argsort(drawn, kind="stable")[:held_out]])
    return chosen


def training_and_validation(
    data: TrainingSet, vocabulary: Vocabulary, threshold: float, fraction: float, reverse: bool, seed: int
) -> tuple[Rows, Rows]:
    """Rows to train on and rows to validate on; no query is in both.

    Raises DataError if no sequence reaches the threshold.
    """
    selected = data.scores >= threshold
    if not selected.any():
        best = np.nanmax(data.scores) if np.isfinite(data.scores).any() else float("nan")
        raise DataError(
            f"no sequence reaches the threshold {threshold:g}; the best of {len(data.scores)} scores {best:.4g}",
            "lower it with --option threshold=-inf, or generate sequences that help",
        )
    queries, icds = data.query_rows[selected], data.icd_rows[selected]
    ids = data.index.ids[queries]
    held_out = np.isin(ids, split_by_query(ids, fraction, seed))
    pools = None if data.candidate_rows is None else data.candidate_rows[selected]
    train, validation = (
        build_rows(queries[part], icds[part], vocabulary, reverse, None if pools is None else pools[part])
        for part in (~held_out, held_out)
    )
    return train, validation


def check_length(rows: Rows, n_positions: int) -> None:
    """Raises ConfigError if the rows are longer than the model's positions."""
    if rows.tokens.shape[1] > n_positions:
        shots = rows.tokens.shape[1] - 3
        raise ConfigError(
            f"sequences of {shots} ICDs do not fit into n_positions = {n_positions}",
            f"use --option n_positions={shots + 3}",
        )


class RowDataset(Dataset[Batch]):
    """Items are whole batches, selected by an index tensor with one gather per array."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, selected: Tensor) -> Batch:
        rows = self.rows
        return Batch(rows.tokens[selected], rows.labels[selected], rows.queries[selected], rows.pools[selected])


class EvenBatches(Sampler[Tensor]):
    """Cuts an epoch into nearly equal batches of at most `batch_size` x `world`, a multiple of `multiple` if rows suffice.

    So no step uses a small remainder, and validations are evenly spaced, the last at the epoch's end. With `shuffle`, the
    order of epoch e depends on (seed, e) only. Each of `world` processes gets its `rank`'s share of every batch: together
    these are the batches of a single process with `world` times the size, and no row occurs twice. With fewer rows than
    processes, each process gets them all.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        *,
        multiple: int = 1,
        shuffle: bool,
        seed: int = 0,
        world: int = 1,
        rank: int = 0,
    ) -> None:
        whole = batch_size * world
        if rows < world:
            world, rank = 1, 0
        self.rows, self.shuffle, self.seed, self.rank, self.world = rows, shuffle, seed, rank, world
        needed = -(-rows // whole)
        # no batch has fewer rows than processes, since all processes must take the same number of steps
        self.count = max(min(-(-needed // multiple) * multiple, rows // world), 1)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        order = np.arange(self.rows)
        if self.shuffle:
            order = keyed_generator(self.seed, "lever-lm.shuffle", self.epoch).permutation(self.rows)
        for batch in torch.tensor_split(torch.from_numpy(order), self.count):
            yield batch[self.rank :: self.world]
