"""Finding a data set's folder: below the one that the user named, or below the one in an environment variable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from icltool.errors import DataError


def chosen_root(root: Path | None, variables: Sequence[str], name: str) -> Path:
    """The folder given, or the first of the environment variables that is set; absolute.

    Raises DataError when there is none, or it is no folder.
    """
    if root is not None:
        return _folder(root, "--root")
    for variable in variables:
        if os.environ.get(variable):
            return _folder(Path(os.environ[variable]), variable)
    raise DataError(
        f"data set {name!r}: no folder given",
        f"name the folder of its files with --root, or set {' or '.join(variables)}",
    )


def folder_of(variable: str) -> Path | None:
    """The folder in an environment variable; None when it is not set."""
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None


def first_holding(candidates: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first of the folders that holds at least one of the names."""
    return next((folder for folder in candidates if any((folder / name).exists() for name in names)), None)


def _folder(path: Path, origin: str) -> Path:
    folder = path.expanduser().absolute()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}", f"it was given by {origin}; name the folder that holds the official files")
    return folder
