"""The page in a browser under other conditions: hostile texts, no script, narrow, dark, large."""

from __future__ import annotations

import itertools

import pytest

from icltool.commands.report.page.content import Page
from tests.browser import CHROMIUM, DRIVER
from tests.commands.report.page import pages
from tests.commands.report.page.browsing import Report

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
]
#: Names of what can be operated, and alternative texts: the accessible name as assistive technology gets it.
UNNAMED = """
return [...document.querySelectorAll('button, select, input, summary, a, article, [role=img], [role=group], form')]
  .filter((e) => e.offsetParent !== null || e.getClientRects().length)
  .filter((e) => {
    const labels = [...(e.labels ?? [])].map((l) => l.textContent);
    const by = (e.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent);
    const own = ['SELECT', 'INPUT', 'ARTICLE', 'FORM', 'svg', 'DIV'].includes(e.tagName) ? '' : e.textContent;
    return ![...labels, ...by, e.getAttribute('aria-label'), own].some((name) => name && name.trim());
  }).map((e) => e.outerHTML.slice(0, 200))
"""
WIDE = """
return [...document.querySelectorAll('body *')]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest('.scroll, .hidden, svg'))
  .map((e) => e.outerHTML.slice(0, 150)).slice(0, 5)
"""


def test_hostile_texts_stay_texts(report: Report) -> None:
    report.browser.size(360, 780, phone=True)
    report.open("hostile", page=pages.hostile)
    browser = report.browser
    page = pages.hostile()
    for name, value in (("view", "one"), ("view", "pair")):
        report.choose(**{name: value})
        browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        assert browser.run(WIDE) == []
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        assert browser.count("#cards script, #cards [onerror], #cards img[src=x]") == 0
    report.choose(view="one")
    for words in ("<script>alert(1)</script>", "</script><script>alert(3)</script>", "\u202etxet"):
        report.search(words)
        assert report.count == len(page.results)
    texts = set(report.texts(".data"))
    assert set(pages.HOSTILE) <= texts
    assert "\n".join(pages.HOSTILE) in texts
    apart = browser.run(
        "return [...document.querySelectorAll('.data')].every((e) => getComputedStyle(e).unicodeBidi !== 'normal')"
    )
    assert apart
    assert browser.count("script") == 4
    report.clean()


def test_a_script_that_got_in_would_not_run(small: tuple[Report, Page]) -> None:
    """The policy holds: markup from text is refused, and so are a script and a style that are not the page's."""
    report, _ = small
    browser = report.browser
    refused = browser.run("try { document.body.innerHTML = '<b>x</b>'; return ''; } catch (e) { return e.name; }")
    assert refused == "TypeError"
    browser.run(
        "const s = document.createElement('style'); s.textContent = 'body { display: none }'; document.head.append(s);"
        "const i = document.createElement('img'); i.src = 'https://example.invalid/a.png'; document.body.append(i);"
    )
    assert browser.run("return getComputedStyle(document.body).display") == "block"
    assert any("Content Security Policy" in line for line in browser.console())
    assert [url for url in browser.requests() if url.startswith("http")] in ([], ["https://example.invalid/a.png"])


def test_dark_and_light(small: tuple[Report, Page]) -> None:
    report, _ = small
    browser = report.browser
    ground = "return getComputedStyle(document.body).backgroundColor"
    ink = "return getComputedStyle(document.querySelector('.plot text')).fill"
    assert browser.run(ground) == "rgb(255, 255, 255)"
    light = browser.run(ink)
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.run(ground) == "rgb(18, 22, 27)"
    assert browser.run(ink) != light
    browser.until(lambda: report.texts("#theme") == ["Light mode"])
    browser.click("#theme")
    assert browser.run(ground) == "rgb(255, 255, 255)"
    report.open("small")
    assert browser.run(ground) == "rgb(255, 255, 255)", "the choice is kept"
    browser.run("localStorage.clear()")
    browser.command("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("kind", ["small", "sequences"])
def test_narrow_and_named(report: Report, kind: str) -> None:
    browser = report.browser
    browser.size(360, 780, phone=True)
    report.open(kind, page={"small": pages.evaluations, "sequences": pages.sequences}[kind])
    browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    assert browser.run(WIDE) == []
    assert browser.run("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    assert browser.run("return [...document.querySelectorAll('.scroll')].some((e) => e.scrollWidth > e.clientWidth)")
    assert browser.run(UNNAMED) == []
    alts = browser.run("return [...document.images].map((e) => e.alt)")
    assert alts
    assert all(alts)
    status = browser.run("const e = document.getElementById('count'); return [e.role, e.getAttribute('aria-live')]")
    assert status == ["status", "polite"]
    ids = browser.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))")
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), levels
    report.clean()


def test_without_script_tables_and_plots_are_there(report: Report, small: tuple[Report, Page]) -> None:
    browser = report.browser
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open("about:blank")
        browser.open(report.files["small"].as_uri())
        assert browser.run("return document.documentElement.dataset.ready ?? ''") == ""
        assert browser.run("return document.querySelector('table').getBoundingClientRect().height > 50")
        assert browser.run("return document.querySelector('.plot').getBoundingClientRect().height > 50")
        assert "needs JavaScript" in browser.run("return document.querySelector('noscript').textContent")
        assert browser.run("return document.getElementById('controls').hidden")
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_a_large_page_is_ready_soon(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """400 queries, 5 methods with 8 shots: prints how long it takes; only that it comes is held."""
    report.browser.size(1280, 1000)
    report.open("large", page=lambda: pages.evaluations(400, 5, (8,), 2000))
    ready = report.browser.run("return Number(document.documentElement.dataset.ready)")
    images = report.browser.run("return Number(document.documentElement.dataset.images)")
    assert report.browser.run("return [...document.images].every((e) => e.src.startsWith('data:image/webp'))")
    code = """
      const start = performance.now();
      const e = document.getElementById('q'); e.value = 'purple star';
      document.getElementById('controls').dispatchEvent(new Event('change', {bubbles: true}));
      document.getElementById('sort').value = 'gain';
      document.getElementById('sort').dispatchEvent(new Event('change', {bubbles: true}));
      document.body.getBoundingClientRect();
      return performance.now() - start;
    """
    searched = report.browser.run(code)
    assert 0 < report.count < 2000
    size = report.files["large"].stat().st_size / 1e6
    with capsys.disabled():
        print(f"\n400 x 5 x 8, {size:.1f} MB: ready after {ready:.0f} ms, images after {images:.0f} ms,", end=" ")
        print(f"first search and sort {searched:.0f} ms")
    report.clean()
