"""`icltool guide`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, ClassVar, Optional

import typer

from icltool.commands.guide.topics import Topic, names, topic, topics

_WIDEST = 100


def complete_topics(incomplete: str) -> list[str]:
    """The topics that begin as typed."""
    return [name for name in names() if name.startswith(incomplete)]


def command(
    name: Annotated[
        Optional[str],  # noqa: UP045 (Typer reads it)
        typer.Argument(
            metavar="[TOPIC]", autocompletion=complete_topics, help="the topic; without one, all are listed"
        ),
    ] = None,
) -> None:
    """List the topics of the manual, or show one of them.

    On a terminal the topic is formatted; into a file or a pipe it is written as Markdown.

        icltool guide own-data
    """
    if name is None:
        for line in _listing(topics(), _width()):
            typer.echo(line)
    elif sys.stdout.isatty():
        _show(topic(name))
    else:
        typer.echo(topic(name).text, nl=False)


def _listing(pages: list[Topic], width: int) -> Iterator[str]:
    """A line for each topic, wrapped to the width."""
    column = max(len(page.name) for page in pages) + 4
    yield "The topics of the manual, in reading order. `icltool guide TOPIC` shows one."
    yield ""
    for page in pages:
        yield from textwrap.wrap(
            f"{page.title}. {page.first_sentence}",
            width,
            initial_indent=f"  {page.name}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )


def _show(page: Topic) -> None:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import CodeBlock, Markdown
    from rich.syntax import Syntax
    from rich.theme import Theme

    class CopyableCode(CodeBlock):
        """A code block whose lines are never broken or cut, so that a reader can copy them."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            code = str(self.text).rstrip()
            lines = Syntax(code, self.lexer_name, theme=self.theme).highlight(code)
            lines.rstrip()
            yield from console.render(lines, options.update(no_wrap=True, overflow="ignore"))

    class Manual(Markdown):
        elements: ClassVar = {**Markdown.elements, "fence": CopyableCode, "code_block": CopyableCode}

    plain_code = Theme({"markdown.code": "bold cyan"})  # rich's own has a black background
    Console(width=_width(), theme=plain_code).print(
        Manual(page.for_terminal(), code_theme="ansi_dark", hyperlinks=False), crop=False
    )


def _width() -> int:
    return min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
