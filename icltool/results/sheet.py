"""A table of figures for a screen of any width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

#: Names longer than this are folded if the table does not fit.
NAME_WIDTH = 24
#: Columns of the screen between two columns of the table.
_GAP = 2


class Figure(NamedTuple):
    """A cell."""

    text: str
    bold: bool = False


class Row(NamedTuple):
    """A name and its figures, one for each column of the sheet."""

    name: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Sheet:
    """A column of names and columns of figures. Columns that do not fit beside the others continue in a further block, with
    the names again, so that no figure is broken; of the names only those are that are longer than NAME_WIDTH."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Row]
    title: str = ""
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        if self.title:
            yield Text(self.title, style="table.title")
        for columns in self._blocks(options.max_width):
            yield self._block(columns, options.max_width)
        if self.caption:
            yield Text(self.caption, style="table.caption")
        yield Text("")

    def _blocks(self, width: int) -> Iterator[list[int]]:
        """Positions of the columns that stand side by side."""
        widths = self._widths
        whole = self._width_of_names + sum(_GAP + one for one in widths) <= width
        room = width - (self._width_of_names if whole else min(self._width_of_names, NAME_WIDTH))
        block: list[int] = []
        for position in range(len(widths)):
            if block and sum(_GAP + widths[i] for i in (*block, position)) > room:
                yield block
                block = []
            block.append(position)
        yield block

    def _block(self, columns: Sequence[int], width: int) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        whole = self._width_of_names + sum(_GAP + self._widths[i] for i in columns) <= width
        table.add_column(Text(self.heading), overflow="fold", max_width=None if whole else NAME_WIDTH)
        for i in columns:
            table.add_column(Text(self.columns[i].rjust(self._widths[i])), overflow="fold", min_width=self._widths[i])
        for row in self.rows:
            table.add_row(Text(row.name), *(self._aligned(row.figures[i], i) for i in columns))
        return table

    def _aligned(self, figure: Figure, column: int) -> Text:
        """To the right; rich would cut off the blank in place of a mark."""
        from rich.text import Text

        return Text(figure.text.rjust(self._widths[column]), style="bold" if figure.bold else "")

    @property
    def _width_of_names(self) -> int:
        return max(len(name) for name in (self.heading, *(row.name for row in self.rows)))

    @property
    def _widths(self) -> list[int]:
        return [
            max(len(text) for text in (name, *(row.figures[i].text for row in self.rows)))
            for i, name in enumerate(self.columns)
        ]
