"""The interface of selector models, and the published one: a causal model with the index set as its vocabulary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from icltool.components.learners.lever_lm.networks import NETWORKS, build_adapter
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.rows import IGNORED, Batch, Vocabulary
from icltool.contracts import IndexSet, QuerySet
from icltool.errors import ConfigError, DataError

#: Features by modality ("image", "text"), [..., D] each.
Features = Mapping[str, Tensor]


class SelectorModel(nn.Module):
    """A selector's model, as training and decoding use it.

    A row is read as embeddings [B, T, E]: a start with the query, then one position per ICD (in-context demonstration).
    `advance` returns the hidden states, and `scores` rates each example of an index set as the next ICD.
    """

    #: Whether the model identifies examples by their rows in training, and so fits no other index set.
    bound_to_index: bool
    options: LeverLMOptions

    @abstractmethod
    def batch_loss(self, batch: Batch, table: Features, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(summed loss in nats, number of predictions) of some training rows.

        `table` contains the features [N, D] of the index set, `codes` int64 [2, N] its image ids and groups.
        """

    @abstractmethod
    def start_embedding(self, query: Features) -> Tensor:
        """[B, T0, E] for the queries' features [B, D]."""

    @abstractmethod
    def icd_embedding(self, tokens: Tensor, icds: Features) -> Tensor:
        """[B, K, E] for the ICDs' tokens int64 [B, K] and features [B, K, D]."""

    @abstractmethod
    def advance(self, embeddings: Tensor, state: object = None, keep: bool = False) -> tuple[Tensor, object]:
        """As Network.advance."""

    @abstractmethod
    def selected(self, state: object, rows: Tensor) -> object:
        """As Network.selected."""

    @abstractmethod
    def targets(self, tokens: Tensor, table: Features) -> Tensor:
        """The tensor with which `scores` compares hidden states, for an index set of n examples with tokens int64 [n] and
        features [n, D]; its first dimension is n."""

    @abstractmethod
    def scores(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """[B, E] -> scores [B, n] of the next ICD, unnormalised log-probabilities."""

    @property
    @abstractmethod
    def max_shots(self) -> int | None:
        """The most demonstrations that positions allow; None for no limit."""


class LeverLMModel(SelectorModel):
    """Token embedding, plus the query's features at QUERY, plus each ICD's at its position, through a causal network.

    Features of several modalities are added; each modality has one adapter, which query and ICDs share.
    """

    bound_to_index = True

    def __init__(self, examples: int, dim: int, options: LeverLMOptions) -> None:
        """`examples` is N, `dim` is D. Raises ConfigError if D is not n_embd and there is no adapter."""
        super().__init__()
        if not options.adapter and dim != options.n_embd:
            raise ConfigError(
                f"embeddings of width {dim} do not fit n_embd = {options.n_embd} without an adapter",
                f"use --option adapter=true or --option n_embd={dim}",
            )
        self.vocabulary, self.options, self.dim = Vocabulary(examples), options, dim
        self.network = NETWORKS[options.network](self.vocabulary, options)
        modalities = sorted(options.reads.needs)
        self.adapters = nn.ModuleDict({m: build_adapter(dim, options) for m in modalities} if options.adapter else {})

    def features_embedding(self, features: Features, modalities: tuple[str, ...]) -> Tensor:
        """The sum over modalities of (optionally normalised) adapted features: [..., D] -> [..., E]."""
        parts = []
        for modality in modalities:
            values = features[modality]
            if self.options.norm:
                values = nn.functional.normalize(values, dim=-1)
            parts.append(self.adapters[modality](values) if self.options.adapter else values)
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def start_embedding(self, query: Features) -> Tensor:
        """[B, 2, E]: BOS, then QUERY with the query's features [B, D]."""
        batch = next(iter(query.values()))
        ids = torch.tensor([self.vocabulary.bos, self.vocabulary.query], device=batch.device).expand(len(batch), 2)
        embedded = self.network.embed(ids)
        return torch.stack(
            [embedded[:, 0], embedded[:, 1] + self.features_embedding(query, self.options.reads.query)], 1
        )

    def icd_embedding(self, tokens: Tensor, icds: Features) -> Tensor:
        """[B, K, E] for tokens int64 [B, K] with their features [B, K, D]; special tokens get no features."""
        embedded = self.network.embed(tokens)
        if not self.options.reads.icd:
            return embedded
        is_icd = (tokens < self.vocabulary.examples).unsqueeze(-1)
        return embedded + self.features_embedding(icds, self.options.reads.icd) * is_icd

    def forward(self, tokens: Tensor, query: Features, icds: Features) -> Tensor:
        """Logits [B, L - 1, V] of the token after each position of `tokens` int64 [B, L] but the last.

        `query` [B, D]; `icds` [B, L - 3, D] are the features at positions 2 … L - 2 (arbitrary at EOS).
        """
        embeddings = torch.cat([self.start_embedding(query), self.icd_embedding(tokens[:, 2:-1], icds)], 1)
        hidden, _ = self.network.advance(embeddings)
        return self.network.logits(hidden)

    def batch_loss(self, batch: Batch, table: Features, codes: Tensor) -> tuple[Tensor, Tensor]:
        """See SelectorModel; the loss is `loss`."""
        reads = self.options.reads
        rows = batch.tokens[:, 2:-1].clamp(
            max=self.vocabulary.examples - 1
        )  # EOS gets some row's features, masked later
        query = {m: table[m][batch.queries] for m in reads.query}
        icds = {m: table[m][rows] for m in reads.icd}
        return self.loss(batch.tokens, batch.labels, query, icds)

    def advance(self, embeddings: Tensor, state: object = None, keep: bool = False) -> tuple[Tensor, object]:
        return self.network.advance(embeddings, state, keep)

    def selected(self, state: object, rows: Tensor) -> object:
        return self.network.selected(state, rows)

    def targets(self, tokens: Tensor, table: Features) -> Tensor:
        return tokens

    def scores(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return self.network.logits(hidden)[:, targets]

    @property
    def max_shots(self) -> int | None:
        return self.options.n_positions - 1 if self.options.network == "gpt2" else None

    def loss(self, tokens: Tensor, labels: Tensor, query: Features, icds: Features) -> tuple[Tensor, Tensor]:
        """(summed cross-entropy in nats, number of predicted tokens) over the whole row.

        QUERY (a constant, whose loss soon vanishes), icd_1 … icd_K and EOS are each predicted from what precedes them.
        """
        logits = self(tokens, query, icds)
        targets = labels[:, 1:]
        total = nn.functional.cross_entropy(
            logits.flatten(0, 1).float() if logits.dtype != torch.float64 else logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        return total, (targets != IGNORED).sum()


def code_tensor(index: IndexSet) -> Tensor:
    """int64 [2, N]: image ids, and near-duplicate groups (-1 for none)."""
    return torch.stack([torch.from_numpy(np.array(part, dtype=np.int64)) for part in (index.image_ids, index.groups)])


def feature_tensors(arrays: IndexSet | QuerySet, modalities: frozenset[str]) -> dict[str, Tensor]:
    """The embeddings of these modalities as float32 tensors [n, D].

    Raises ValueError if one is missing, DataError if they differ in width or contain values that are not finite.
    """
    tensors: dict[str, Tensor] = {}
    for modality in sorted(modalities):
        values = getattr(arrays, modality)
        if values is None:
            raise ValueError(f"the {modality} embeddings are missing")
        tensors[modality] = torch.from_numpy(values).float()
        if not torch.isfinite(tensors[modality]).all():
            raise DataError(
                f"the {modality} embeddings contain values that are not finite", "run `icltool embed` again"
            )
    if len({tensor.shape[1] for tensor in tensors.values()}) > 1:
        widths = ", ".join(f"{name} {tensor.shape[1]}" for name, tensor in tensors.items())
        raise DataError(f"embeddings differ in width: {widths}", "compute them with the same encoder")
    return tensors
