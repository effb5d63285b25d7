"""What an export reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from icltool.commands.export.options import ExportConfig
from icltool.errors import ConfigError, StoreError
from icltool.store.workspace import Workspace


def input_of(config: ExportConfig, newest: Callable[[Workspace], Path]) -> Path:
    """--input, else the newest in the workspace. StoreError where it does not exist, ConfigError for several."""
    inputs = inputs_of(config, newest)
    if len(inputs) > 1:
        raise ConfigError(f"{config.what} are exported from one --input, got {len(inputs)}", "give one of them")
    return inputs[0]


def inputs_of(config: ExportConfig, newest: Callable[[Workspace], Path]) -> tuple[Path, ...]:
    """All that --input names, else the newest in the workspace. StoreError for one that does not exist."""
    for path in config.input:
        if not path.exists():
            raise StoreError(f"{path} does not exist", "check --input; without it, the newest in the workspace is used")
    return config.input or (newest(Workspace(config.workspace)),)
