"""icltool configures in-context demonstrations for large vision-language models.

The public API, for plugin authors: `hookimpl`, `Registration`, and the contracts. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_CONTRACTS = (
    "CorpusMetric",
    "DatasetReader",
    "Encoder",
    "Example",
    "Executor",
    "Float64Array",
    "FloatArray",
    "GenerationOptions",
    "IndexSet",
    "IntArray",
    "Judgement",
    "Learner",
    "Metric",
    "Model",
    "PreparedSplit",
    "Progress",
    "Prompt",
    "QueryResult",
    "QuerySet",
    "ReadReport",
    "Retriever",
    "Sampler",
    "Scorer",
    "ScoringRequest",
    "ScoringSession",
    "StageReport",
    "SupportsImageCache",
    "TargetScore",
    "Task",
    "TrainingOutcome",
    "TrainingSet",
    "Valuation",
    "keyed_generator",
)
_ERRORS = ("ConfigError", "DataError", "IclError", "PluginError", "StoreError")
_PLUGIN = ("Registration", "hookimpl")
_HOME = {
    **dict.fromkeys(_CONTRACTS, "icltool.contracts"),
    **dict.fromkeys(_ERRORS, "icltool.errors"),
    **dict.fromkeys(_PLUGIN, "icltool.plugin"),
}

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from icltool.contracts import *  # noqa: F403
    from icltool.errors import ConfigError as ConfigError
    from icltool.errors import DataError as DataError
    from icltool.errors import IclError as IclError
    from icltool.errors import PluginError as PluginError
    from icltool.errors import StoreError as StoreError
    from icltool.plugin import Registration as Registration
    from icltool.plugin import hookimpl as hookimpl


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'icltool' has no attribute {name!r}")
