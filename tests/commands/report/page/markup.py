"""The elements of a page, as a parser that follows the standard for what it opens and closes finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from icltool.commands.report.page.content import Comparison, Page, Shown
from icltool.commands.report.page.render import templates

_VOID = {"meta", "link", "input", "img", "br"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: Element | None = field(repr=False)
    children: list[Element] = field(default_factory=list, repr=False)
    parts: list[str | Element] = field(default_factory=list, repr=False)

    @property
    def text(self) -> str:
        return "".join(p if isinstance(p, str) else p.text for p in self.parts)

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Every element below of this tag with these attributes ("class_" is a class among others)."""
        results = []
        for child in self.children:
            matching = all(
                value in child.attributes.get("class", "").split()
                if name == "class_"
                else child.attributes.get(name) == value
                for name, value in attributes.items()
            )
            if matching and tag in {"", child.tag}:
                results.append(child)
            results += child.all(tag, **attributes)
        return results


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.top = self.open = Element("", {}, None)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"an attribute twice: {tag} {names}"
        element = Element(tag, {name: value or "" for name, value in attributes}, self.open)
        self.open.children.append(element)
        self.open.parts.append(element)
        if tag not in _VOID:
            self.open = element

    def handle_endtag(self, tag: str) -> None:
        assert self.open.tag == tag, f"</{tag}> within {self.open.tag}"
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        self.open.parts.append(data)


def parsed(html: str) -> Element:
    """The whole page; AssertionError where elements are not closed in the order in which they were opened."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open is parser.top, f"{parser.open.tag} stays open"
    return parser.top


def rows(table: Element) -> list[list[str]]:
    """The texts of a table's cells, header first, white space as one blank."""
    return [[" ".join(cell.text.split()) for cell in row.children] for row in table.all("tr")]


def metric_table(page: Page, settings: Sequence[Shown], metric: str, gains: bool = False) -> str:
    """The table of one metric as the page has it."""
    return str(_tables().metric_table(page, settings, metric, gains))


def comparison_table(page: Page, tests: Sequence[Comparison]) -> str:
    """The table of paired tests as the page has it."""
    return str(_tables().comparison_table(page, tests))


def _tables() -> Any:
    return templates().get_template("tables.html").module
