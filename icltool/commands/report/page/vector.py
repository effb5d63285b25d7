"""A drawn figure as SVG that stands within a page: no style sheet of its own, no addresses, colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours that figures are drawn with, and the page's variables that they become (page.css has their values).
INK, MUTED, LINE = "#010101", "#020202", "#030303"
#: How many colours of series the page has; the same as `icltool.results.figures.COLOURS`.
SERIES = 7
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}
_SIZE = re.compile(r"([\d.]+)px")
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
#: Characters of an axis label.
_LABEL = 48
_SPACE = re.compile(r"\s+")


def series_colour(number: int) -> str:
    """The colour that the series of this number is drawn with, round and round."""
    return f"#0000{number % SERIES + 16:02x}"


def variable(colour: str) -> str:
    """What the page has in place of a colour of a figure: a variable, or the colour where it is none of ours."""
    found = {series_colour(n): f"var(--series-{n})" for n in range(SERIES)} | _VARIABLES
    return found.get(colour.lower(), colour)


@contextmanager
def drawing() -> Iterator[None]:
    """Settings under which figures are drawn and saved: text stays text, `$` means a dollar, ids are the same each time."""
    import matplotlib

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "icltool",
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": LINE,
        "font.size": 11,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        yield


def label(text: str) -> str:
    """Text as it may stand in a figure: on one line, without characters that XML has not, cut where it is very long."""
    kept = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return kept if len(kept) <= _LABEL else kept[: _LABEL - 1] + "…"


def figure_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an `svg` element with `role="img"`, named by its title and described by its description.

    `name` is unique on the page: ids begin with it. To be called within `drawing`.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    written = io.StringIO()
    # savefig would draw twice, the first time for a layout that drawing makes anyway
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(written, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = ElementTree.fromstring(written.getvalue())
    box = drawn.get("viewBox", "")
    _strip(drawn)
    kept = set(_references(drawn))
    for element in drawn.iter():
        _plain(element, name, kept)
    drawn.attrib.clear()
    drawn.attrib.update(
        {
            "viewBox": box,
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-desc",
            "class": "plot",
            "stroke-linejoin": "round",
            "stroke-linecap": "butt",
        }
    )
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        told = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        told.text = text
        drawn.insert(position, told)
    return ElementTree.tostring(drawn, encoding="unicode", short_empty_elements=False)


def _strip(drawn: ElementTree.Element) -> None:
    """Takes out name spaces, style sheets, metadata and the white space between elements."""
    for element in drawn.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
        element.tail = None
        if element.tag != "text":
            element.text = None
        for child in [c for c in element if _local(c.tag) in {"style", "metadata"}]:
            element.remove(child)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _references(drawn: ElementTree.Element) -> Iterator[str]:
    for element in drawn.iter():
        for value in element.attrib.values():
            if found := _REFERENCE.search(value):
                yield found[1] or found[2]


def _plain(element: ElementTree.Element, name: str, kept: set[str]) -> None:
    """Attributes in place of a style, which the page's policy would not let count; ids of this figure's own."""
    given = dict(element.attrib)
    style = given.pop("style", "")
    found = dict(_declarations(style))
    for key, value in given.items():
        if key == "id":
            if value in kept:
                found["id"] = f"{name}-{value}"
        elif key == "href":
            found["href"] = f"#{name}-{value[1:]}"
        elif key == "clip-path":
            found["clip-path"] = value.replace("url(#", f"url(#{name}-")
        elif key == "d":
            found["d"] = _SPACE.sub(" ", value).strip()
        elif not (key == "transform" and value.startswith("rotate(-0 ")):
            found[key] = value
    element.attrib = found


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, (p.strip() for p in style.split(";"))):
        key, _, value = (p.strip() for p in part.partition(":"))
        if key in {"font", "font-size"}:
            if size := _SIZE.search(value):
                yield "font-size", size[1]
        elif key != "font-family":
            yield key, variable(value)


def swatch(marker: str | None, colour: str, dashes: str = "", width: int = 30) -> str:
    """A line with a mark, as in the figures, for a legend in HTML; decoration, as the name stands beside it.

    `marker` is Matplotlib's; `dashes` an SVG dash pattern, "none" for no line.
    """
    shown = variable(colour)
    line = "" if dashes == "none" else _line(shown, dashes, width)
    mark = (
        "" if marker is None else f'<path d="{_mark(marker)}" transform="translate({width / 2:g} 6)" fill="{shown}"/>'
    )
    return f'<svg class="swatch" viewBox="0 0 {width} 12" aria-hidden="true">{line}{mark}</svg>'


def _line(colour: str, dashes: str, width: int) -> str:
    pattern = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M0 6H{width}" stroke="{colour}" stroke-width="2" fill="none"{pattern}/>'


def _mark(marker: str, size: float = 8.0) -> str:
    """The outline of one of Matplotlib's marks around (0, 0), y downwards."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.path import Path

    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    letters: Mapping[int, str] = {int(Path.MOVETO): "M", int(Path.LINETO): "L", int(Path.CURVE4): "C"}
    steps = []
    for points, code in path.iter_segments(curves=True):
        if int(code) == int(Path.CLOSEPOLY):
            steps.append("Z")
        else:
            steps.append(letters[int(code)] + " ".join(f"{v * size * (-1) ** i:.2f}" for i, v in enumerate(points)))
    return "".join(steps)
