"""The selector's model: input embedding from tokens and features, next-token scores, and the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from icltool.contracts import IndexSet, QuerySet
from icltool.errors import ConfigError, DataError
from icltool.learners.lever_lm.networks import NETWORKS, build_adapter
from icltool.learners.lever_lm.options import LeverLMOptions
from icltool.learners.lever_lm.rows import IGNORED, Vocabulary

#: Features by modality ("image", "text"), [..., D] each.
Features = Mapping[str, Tensor]


class LeverLMModel(nn.Module):
    """Token embedding, plus the query's features at QUERY, plus each ICD's at its position, through a causal network.

    Features of several modalities are added; each modality has one adapter, which query and ICDs share.
    """

    def __init__(self, examples: int, dim: int, options: LeverLMOptions) -> None:
        """`examples` is N, `dim` is D. Raises ConfigError when D is not n_embd and there is no adapter."""
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
        """The sum over modalities of normalised (if so set) and adapted features: [..., D] -> [..., E]."""
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

        `query` [B, D]; `icds` [B, L - 3, D] are the features at positions 2 … L - 2 (anything where EOS stands).
        """
        embeddings = torch.cat([self.start_embedding(query), self.icd_embedding(tokens[:, 2:-1], icds)], 1)
        hidden, _ = self.network.advance(embeddings)
        return self.network.logits(hidden)

    def loss(self, tokens: Tensor, labels: Tensor, query: Features, icds: Features) -> tuple[Tensor, Tensor]:
        """(summed cross-entropy in nats, number of predicted tokens) over the whole row.

        Predicted are QUERY (a constant, soon at no cost), icd_1 … icd_K and EOS, each from what stands before it.
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


def feature_tensors(arrays: IndexSet | QuerySet, modalities: frozenset[str]) -> dict[str, Tensor]:
    """The embeddings asked for as float32 tensors [n, D], by modality.

    Raises ValueError when one is not there, DataError when they differ in width or hold values that are not finite.
    """
    found: dict[str, Tensor] = {}
    for modality in sorted(modalities):
        values = getattr(arrays, modality)
        if values is None:
            raise ValueError(f"the {modality} embeddings are needed and were not given")
        found[modality] = torch.from_numpy(values).float()
        if not torch.isfinite(found[modality]).all():
            raise DataError(f"the {modality} embeddings hold values that are not finite", "run `icltool embed` again")
    if len({tensor.shape[1] for tensor in found.values()}) > 1:
        widths = ", ".join(f"{name} {tensor.shape[1]}" for name, tensor in found.items())
        raise DataError(f"embeddings differ in width: {widths}", "make them with one encoder")
    return found
