"""icltool configures in-context demonstrations for large vision-language models.

The public API, for plugin authors: `hookimpl`, `Registration`, and the contracts. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {"hookimpl": "icltool.plugin", "Registration": "icltool.plugin", "IclError": "icltool.errors"} | dict.fromkeys(("DatasetReader", "Encoder", "Example", "Executor", "Float64Array", "FloatArray", "GenerationOptions", "IndexSet", "IntArray", "Learner", "Metric", "Model", "PreparedSplit", "ReadReport", "Progress", "Prompt", "QueryResult", "QuerySet", "Retriever", "Sampler", "Scorer", "ScoringRequest", "ScoringSession", "SupportsImageCache", "TargetScore", "Task", "TrainingOutcome", "TrainingSet", "Valuation", "keyed_generator"), "icltool.contracts") | dict.fromkeys(("ConfigError", "DataError", "PluginError", "StoreError"), "icltool.errors")  # fmt: skip

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from icltool.contracts import *  # noqa: F403
    from icltool.errors import ConfigError, DataError, IclError, PluginError, StoreError
    from icltool.plugin import Registration, hookimpl


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'icltool' has no attribute {name!r}")
