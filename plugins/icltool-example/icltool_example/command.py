"""A command: `icltool check-jsonl`. Typer turns its parameters into options and its docstring into the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icltool_example.jsonl import SPLITS, JsonlReader


def check_jsonl(
    root: Annotated[Path, typer.Argument(help="folder with train.jsonl and validation.jsonl", show_default=False)],
    verify: Annotated[bool, typer.Option(help="open every image, not a sample")] = False,
) -> None:
    """Check a folder for `icltool prepare jsonl`, and count its examples.

    An error names the file and how to fix it.

        icltool check-jsonl my-images
    """
    files = JsonlReader().check(root, "caption", verify).files
    counts = (sum(1 for line in file.read_text(encoding="utf-8").splitlines() if line.strip()) for file in files)
    for split, count in zip(SPLITS, counts, strict=True):
        typer.echo(f"{split}: {count:,} examples")
