"""The known styles of captions, and the error for an unknown one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.contracts import read_whole
from icltool.contracts.model import KnowsStyles
from icltool.errors import DataError, StoreError, closest
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset

#: The largest number of known styles listed in a hint.
_LISTED = 12


def styles_in(file: Path) -> list[str]:
    """The styles of a text file, one a line (`personalities.txt`). DataError if it cannot be read or has none."""
    try:
        lines = read_whole(file).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"{file} cannot be read: {reason}", "give a text file with one style on each line") from error
    styles = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not styles:
        raise DataError(f"{file} contains no styles", "give a text file with one style on each line")
    return styles


def styles_of_model(model: object) -> list[str]:
    """The styles that the model knows; empty if it has no list of them."""
    return list(model.styles) if isinstance(model, KnowsStyles) else []


def styles_of_dataset(dataset: PreparedDataset) -> list[str]:
    """The styles of all examples, sorted; empty for a data set without styles."""
    return sorted({example.style for split in dataset.splits for example in dataset.split(split)} - {""})


def prepared_styles(workspace: Path, name: str | None) -> list[str]:
    """The styles of the data set prepared for the task style; empty if there is none, or it is not clear which one."""
    folder = Workspace(workspace)
    try:
        dataset = folder.choose_dataset(name, "style")
    except StoreError:
        return []
    return styles_of_dataset(open_dataset(folder.dataset_folder(*dataset)))


def check_style(style: str, known: Sequence[str], where: str = "") -> None:
    """DataError for a style that is not known."""
    if style in known:
        return
    close = closest(style, known) or closest(style.capitalize(), known)
    listed = ", ".join(known[:_LISTED]) + (f" and {len(known) - _LISTED} more" if len(known) > _LISTED else "")
    meant = f"did you mean {close!r}? " if close else ""
    raise DataError(f"{f'{where}: ' if where else ''}unknown style {style!r}", f"{meant}known: {listed}")


def check_styles(styles: Iterable[tuple[str, str]], known: Sequence[str]) -> None:
    """`check_style` of (where, style)."""
    names = set(known)
    for where, style in styles:
        if style not in names:
            check_style(style, known, where)
