"""A browser with pages of reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from icltool.commands.report.page.content import Page
from icltool.commands.report.page.render import render
from tests.browser import Browser


class Report:
    """A browser with pages on disk; every page must stay without errors and without requests."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.files: dict[str, Path] = {}

    def open(self, name: str, fragment: str = "", page: Callable[[], Page] | None = None) -> None:
        if name not in self.files:
            assert page is not None
            self.files[name] = self.folder / f"{name}.html"
            self.files[name].write_text(render(page()), encoding="utf-8")
        self.browser.open("about:blank")
        self.browser.console()
        self.browser.requests()
        self.browser.open(self.files[name].as_uri() + fragment)
        both = "const {ready, images} = document.documentElement.dataset; return ready && images"
        self.browser.until(lambda: self.browser.run(both))

    def clean(self) -> None:
        """No message in the console, no dialog, nothing asked for but the file."""
        assert self.browser.console() == []
        addresses = {url.split("#")[0] for url in self.browser.requests() if not url.startswith("data:")}
        assert addresses <= {file.as_uri() for file in self.files.values()} | {"about:blank"}

    def choose(self, **values: Any) -> None:
        for name, value in values.items():
            self.browser.run(
                "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
                "if (e.value !== arguments[1]) throw new Error('no such choice');"
                "e.dispatchEvent(new Event('change', {bubbles: true}))",
                name,
                str(value),
            )

    def search(self, words: str) -> None:
        before = self.browser.run("return location.hash")
        self.browser.run("document.getElementById('q').value = ''")
        self.browser.type("#q", words)
        self.browser.until(lambda: self.browser.run("return location.hash") != before)

    @property
    def count(self) -> int:
        text = str(self.browser.run("return document.getElementById('count').textContent"))
        return int(text.split()[0].replace(",", ""))

    @property
    def titles(self) -> list[str]:
        return list(self.browser.run("return [...document.querySelectorAll('.card > h3')].map((e) => e.textContent)"))

    def texts(self, css: str) -> list[str]:
        return list(
            self.browser.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", css)
        )
