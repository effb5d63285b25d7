"""What is collected for the page from examples with several images."""

from __future__ import annotations

from pathlib import Path

from icltool.commands.report.page.content import Page, Thumbnail
from icltool.commands.report.page.examples import DatasetKey
from icltool.commands.report.page.page_builder import Catalogue
from icltool.commands.report.page.payload import columns
from icltool.contracts import Example

KEY = DatasetKey("pairs", "vqa", "0123", "validation")


def pair(number: int, first: str, second: str) -> Example:
    return Example(number, first, 1, "which?", "left", ("left",), "which?", more_images=(second,), more_image_ids=(2,))


def test_all_images_of_an_example_are_shown(tmp_path: Path) -> None:
    catalogue = Catalogue()
    query, shown = pair(1, "/a.png", "/b.png"), pair(2, "/b.png", "/c.png")
    catalogue.query(KEY, 1, "pairs", query, ("left",), query.images)
    catalogue.demonstration(KEY, 2, shown, shown.images)
    catalogue.demonstration(KEY, 2, shown, shown.images)
    catalogue.demonstration(KEY, 3, None, ("",))
    page = Page(kind="evaluations", title="", sources=(), metrics=(), settings=(), results=())
    draft = catalogue.draft(page, tmp_path)
    assert draft.references == ("/a.png", "/b.png", "/c.png")
    assert (draft.large, draft.uses) == ({0, 1}, (0, 2, 2))
    assert [record.images for record in (*draft.page.queries, *draft.page.demonstrations)] == [(0, 1), (1, 2), ()]
    small = Thumbnail("data:image/webp;base64,AA", 4, 3)
    finished = draft.finished([small, None, small])
    assert [record.images for record in (*finished.queries, *finished.demonstrations)] == [(0,), (1,), ()]
    content = columns(finished)
    assert content["queries"]["images"] == [(0,)]  # type: ignore[index,call-overload]
    assert content["icds"]["images"] == [(1,), ()]  # type: ignore[index,call-overload]
