"""Builds the model that the options describe."""

from __future__ import annotations

from icltool.components.learners.lever_lm.model import LeverLMModel, SelectorModel
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.pointer import PointerModel


def build_model(examples: int, dim: int, options: LeverLMOptions) -> SelectorModel:
    """The untrained model for an index set of `examples` (N) with embeddings of width `dim` (D)."""
    kind = PointerModel if options.network == "pointer" else LeverLMModel
    return kind(examples, dim, options)
