"""The browser that tests of pages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from icltool.commands.report.page.content import Page
from tests.browser import Browser
from tests.commands.report.page import pages
from tests.commands.report.page.browsing import Report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    with Browser() as browser:
        yield Report(browser, tmp_path_factory.mktemp("pages"))


@pytest.fixture
def small(report: Report) -> Iterator[tuple[Report, Page]]:
    report.browser.size(1280, 1000)
    report.open("small", page=pages.evaluations)
    yield report, pages.evaluations()
    report.clean()
