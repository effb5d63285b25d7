"""Retrieval with the pointer selector, which can be compared with the published one in one table."""

from __future__ import annotations

from icltool.components.retrievers.lever_lm import LeverLMRetriever


class PointerRetriever(LeverLMRetriever):
    """As LeverLMRetriever, for checkpoints of `icltool train pointer`; they fit any index set of the same encoder."""

    learner = "pointer"
