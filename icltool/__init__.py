"""icltool configures in-context demonstrations for large vision-language models.

The public API, for plugin authors: `hookimpl`, `Registration`, the contracts, what model adapters share (prompt formats,
token arithmetic, reading images, finding weights), and what creates and applies interventions (files, hooks, draws of
examples). Names are imported on first use.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from icltool.releases import __version__ as __version__


@functools.cache
def _homes() -> dict[str, str]:
    """Public name -> its module, read from the imports of `__init__.pyi`."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [
        (node.module, alias.name) for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return {name: module for module, name in imports if module and module != "__future__"}


def __dir__() -> list[str]:
    return sorted(_homes())


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name in _homes():
        return getattr(importlib.import_module(_homes()[name]), name)
    raise AttributeError(f"module 'icltool' has no attribute {name!r}")
