"""The pointer selector: an extension of the paper, a model that represents examples by their features alone.

The published selector learns an output row for every index example, so it cannot generalise from one example to another.
Here the next in-context demonstration (ICD) is the example whose key, a learned linear projection of its features, has the
largest cosine with a projection of the hidden state. There is no table of size N: decoding is a nearest-neighbour search, and
another index set needs no training.

Query, ICDs and keys each have one linear layer per modality. The layers are linear on purpose: on unseen combinations of
attributes the two-layer adapters of the published model generalise worse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from icltool.components.learners.lever_lm.model import Features, SelectorModel
from icltool.components.learners.lever_lm.networks import ReadsWithGPT2, gpt2_config
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.rows import Batch
from icltool.errors import ConfigError

#: The logit of a cosine of one at the start of training.
INITIAL_SCALE = 10.0


class PointerModel(ReadsWithGPT2, SelectorModel):
    """[QUERY + query's features, icd_1's features, …] through GPT-2; every position points at the next ICD."""

    bound_to_index = False

    def __init__(self, examples: int, dim: int, options: LeverLMOptions) -> None:
        """`examples` is N, the size of the index set of training, on which no shape depends. `dim` is D."""
        super().__init__()
        from transformers import GPT2Model

        self.examples, self.dim, self.options = examples, dim, options
        config = gpt2_config(options, 1)
        self.transformer = GPT2Model(config)
        self.transformer.wte = nn.Identity()  # type: ignore[assignment]  # no lookup: tokens are features
        reads = options.reads
        self.query_adapters = self._layers(reads.query, options.n_embd)
        self.icd_adapters = self._layers(reads.icd, options.n_embd)
        self.key_layers = self._layers(reads.icd, options.projection)
        self.query_token = nn.Parameter(torch.randn(options.n_embd) * config.initializer_range)
        self.pointer = nn.Linear(options.n_embd, options.projection)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))

    def start_embedding(self, query: Features) -> Tensor:
        """[B, 1, E]."""
        return (self.query_token + self._mapped(query, self.query_adapters)).unsqueeze(-2)

    def icd_embedding(self, tokens: Tensor, icds: Features) -> Tensor:
        return self._mapped(icds, self.icd_adapters)

    def targets(self, tokens: Tensor, table: Features) -> Tensor:
        """The keys [n, P], normalised."""
        return normalize(self._mapped(table, self.key_layers), dim=-1)

    def scores(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return self.log_scale.exp() * self.pointing(hidden) @ targets.T

    def pointing(self, hidden: Tensor) -> Tensor:
        """The directions [..., P] to which hidden states [..., E] point, normalised."""
        return normalize(self.pointer(hidden), dim=-1)

    @property
    def max_shots(self) -> int | None:
        return self.options.n_positions

    def batch_loss(self, batch: Batch, table: Features, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats of each ICD among the rows with which it is contrasted (option `contrast`).

        The contrast excludes earlier ICDs, and rows that share the query's image or group.
        """
        if self.options.contrast == "pool" and not batch.pools.shape[1]:
            raise ConfigError(
                "these sequences have no candidate pools", "use --option contrast=index, or generate them again"
            )
        rows = batch.tokens[:, 2:-1]
        known = rows < self.examples  # the other columns of a short row are EOS
        rows = torch.where(known, rows, 0)
        embeddings = self.start_embedding({m: table[m][batch.queries] for m in self.options.reads.query})
        if rows.shape[1] > 1:
            read = {m: table[m][rows[:, :-1]] for m in self.options.reads.icd}
            embeddings = torch.cat([embeddings, self.icd_embedding(rows, read)], 1)
        pointing = self.pointing(self.advance(embeddings)[0])
        if self.options.contrast == "pool":
            rivals = batch.pools
            keys = self.targets(rows, {m: table[m][rivals.clamp(min=0)] for m in self.options.reads.icd})
            logits = torch.einsum("bkp,bcp->bkc", pointing, keys)
            closed = rivals < 0
        else:
            rivals = self._drawn(rows[known], batch.queries, codes.shape[1])
            keys = self.targets(rows, {m: table[m][rivals] for m in self.options.reads.icd})
            logits = pointing @ keys.T
            own, theirs = codes[:, batch.queries].unsqueeze(-1), codes[:, rivals].unsqueeze(1)
            closed = ((own == theirs) & (own >= 0)).any(0)
            rivals = rivals.expand(len(rows), -1)
        is_target = rivals.unsqueeze(1) == rows.unsqueeze(2)  # [B, K, C]
        before = (is_target.cumsum(1) - is_target.long()) > 0
        logits = (self.log_scale.exp() * logits).masked_fill(closed.unsqueeze(1) & ~is_target | before, -torch.inf)
        counted = known & is_target.any(-1)
        total = cross_entropy(
            logits[counted].float() if logits.dtype != torch.float64 else logits[counted],
            is_target.long().argmax(-1)[counted],
            reduction="sum",
        )
        return total, counted.sum()

    def _drawn(self, icds: Tensor, queries: Tensor, examples: int) -> Tensor:
        """int64 [C]: the batch's ICDs and at most `negatives` further rows, drawn with a seed from the batch's queries."""
        if self.options.negatives >= examples:
            return torch.arange(examples, device=icds.device)
        generator = torch.Generator().manual_seed(int(queries.sum()))
        drawn = torch.randint(examples, (self.options.negatives,), generator=generator).to(icds.device)
        rows: Tensor = torch.unique(torch.cat([icds, drawn]))
        return rows

    def _layers(self, modalities: tuple[str, ...], width: int) -> nn.ModuleDict:
        return nn.ModuleDict({m: nn.Linear(self.dim, width) for m in modalities})

    def _mapped(self, features: Features, layers: nn.ModuleDict) -> Tensor:
        """The sum over modalities of the mapped features, [..., D] -> [..., width].

        With `norm` features are scaled to the length sqrt(D), which suits the initial weights.
        """
        parts = []
        for modality, layer in layers.items():
            values = features[modality]
            if self.options.norm:
                values = normalize(values, dim=-1) * math.sqrt(self.dim)
            parts.append(layer(values))
        return torch.stack(parts).sum(0)
