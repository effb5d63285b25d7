"""What an export reads, and where it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from icltool.config.export import ExportConfig
from icltool.errors import ConfigError, StoreError
from icltool.store.workspace import Workspace


class Output(Protocol):
    """Options of a stage that writes where it is told, or into the workspace's folder exports."""

    @property
    def output(self) -> Path | None: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def workspace(self) -> Path: ...


def input_of(config: ExportConfig, newest: Callable[[Workspace], Path]) -> Path:
    """--input, else the newest in the workspace. StoreError where it does not exist, ConfigError for several."""
    found = inputs_of(config, newest)
    if len(found) > 1:
        raise ConfigError(
            f"{config.what} are exported from one --input, and {len(found)} are given", "give one of them"
        )
    return found[0]


def inputs_of(config: ExportConfig, newest: Callable[[Workspace], Path]) -> tuple[Path, ...]:
    """All that --input names, else the newest in the workspace. StoreError for one that does not exist."""
    for path in config.input:
        if not path.exists():
            raise StoreError(f"{path} does not exist", "check --input; without it the newest in the workspace is taken")
    return config.input or (newest(Workspace(config.workspace)),)


def output_of(config: Output, name: str, sources: tuple[Path, ...], folder: bool = False) -> Path:
    """Where to write a file, or a `folder`. StoreError when something is there and `--overwrite` is not, or when it is what is
    being read."""
    target = config.output or config.workspace / "exports" / name
    if any(target.resolve() == source.resolve() for source in sources):
        raise StoreError(f"{target} is what is to be read", "give another --output")
    if not folder and target.is_dir():
        raise StoreError(f"{target} is a folder", "give a file as --output")
    if folder and target.exists() and not target.is_dir():
        raise StoreError(f"{target} is a file", "give a folder as --output")
    taken = any(target.iterdir()) if target.is_dir() else target.exists()
    if taken and not config.overwrite:
        raise StoreError(f"{target} exists already", "add --overwrite, or give another --output")
    return target
