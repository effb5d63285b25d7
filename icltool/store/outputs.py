"""Where a command writes its output files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from icltool.errors import StoreError


class Output(Protocol):
    """Options of a stage that writes to `--output`, or into the workspace's folder exports."""

    @property
    def output(self) -> Path | None: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def workspace(self) -> Path: ...


def output_of(config: Output, name: str, sources: tuple[Path, ...], folder: bool = False) -> Path:
    """The path to write a file, or a `folder`, to. StoreError if it exists and `--overwrite` is not set, or if it is also
    the input."""
    target = config.output or config.workspace / "exports" / name
    if any(target.resolve() == source.resolve() for source in sources):
        raise StoreError(f"{target} is also the input", "give another --output")
    if not folder and target.is_dir():
        raise StoreError(f"{target} is a folder", "give a file as --output")
    if folder and target.exists() and not target.is_dir():
        raise StoreError(f"{target} is a file", "give a folder as --output")
    exists = any(target.iterdir()) if target.is_dir() else target.exists()
    if exists and not config.overwrite:
        raise StoreError(f"{target} already exists", "add --overwrite, or give another --output")
    return target
