"""The report as one HTML file: no network, no server, nothing that its policy does not name."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from icltool.commands.report.page import charts, table
from icltool.commands.report.page.content import Page
from icltool.commands.report.page.payload import columns, images, packed
from icltool.results.grid import p_text

#: The parts of the script, in the order in which they stand in the page.
SCRIPTS = ("data.js", "cards.js", "page.js")


def render(page: Page) -> str:
    """The whole page as HTML5, to be written as UTF-8; the same for the same Page.

    Everything that comes from data is escaped or compressed; the policy (Content-Security-Policy) lets in one style sheet
    and two scripts, by their hashes, and images that the page itself holds. Raises ValueError where an image is not one.
    """
    style, first = _own("page.css"), _own("theme.js")
    script = "\n".join(map(_own, SCRIPTS))
    html = (
        templates()
        .get_template("page.html")
        .render(
            page=page,
            policy=_policy(style, first, script),
            style=style,
            first=first,
            script=script,
            payload=packed(columns(page)),
            images=images(page),
        )
    )
    return html.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def templates() -> Environment:
    """The templates of the page. They escape all that they are given, and call functions of `table` and `charts`."""
    environment = Environment(
        loader=PackageLoader("icltool.commands.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(table=table, charts=charts)
    environment.filters["p_text"] = p_text
    environment.tests.update(finite=math.isfinite, difference=table.differs)
    return environment


def _own(name: str) -> str:
    """A style sheet or script of the page's own."""
    return files("icltool.commands.report.page").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, *scripts: str) -> str:
    parts = (
        "default-src 'none'",
        "img-src data:",
        f"style-src '{_digest(style)}'",
        "script-src " + " ".join(f"'{_digest(script)}'" for script in scripts),
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
    return "; ".join(parts)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
