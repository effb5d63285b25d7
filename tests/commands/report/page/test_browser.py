"""The gallery of the page in a browser, from a file, where there is one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from icltool.commands.report.page.content import Page
from tests.browser import CHROMIUM, DRIVER
from tests.commands.report.page import pages
from tests.commands.report.page.browsing import Report

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
]


def test_search_finds_what_is_there(small: tuple[Report, Page]) -> None:
    report, page = small
    assert report.count == len(page.results)
    assert len(report.titles) == 24
    for words, holds in (
        ("purple", lambda r: "purple" in _text(page, r)),
        ("PURPLE star", lambda r: "purple" in _text(page, r) and "star" in _text(page, r)),
        ('"dark blue"', lambda r: "dark blue" in _text(page, r)),
        ("#107", lambda r: page.queries[r.query].id == 107),
        ("#9003", lambda r: False),
        ("9003", lambda r: any(page.demonstrations[d].id == 9003 for d in r.demonstrations)),
        ("nothing-like-it", lambda r: False),
    ):
        report.search(words)
        assert report.count == sum(holds(r) for r in page.results), words
    assert report.texts(".empty") == ["Nothing fits these filters."]
    report.browser.click("#reset")
    report.browser.until(lambda: report.count == len(page.results))
    assert report.browser.value("#q") == ""


def _text(page: Page, result: Any) -> str:
    query = page.queries[result.query]
    icds = [page.demonstrations[d] for d in result.demonstrations]
    parts = [query.question, *query.references, result.answer, result.raw, *(f"{d.text} {d.label}" for d in icds)]
    return "\n".join(parts).lower()


def test_every_filter_leaves_what_fits(small: tuple[Report, Page]) -> None:
    report, page = small
    places = {(s.method, s.shots): i for i, s in enumerate(page.settings)}
    report.choose(method="i2i", shots=2)
    assert report.count == sum(r.setting == places["i2i", 2] for r in page.results)
    assert all("i2i, 2 shots" in text for text in report.texts(".under"))
    report.browser.click("#reset")
    metric = "vqa-accuracy"
    expected = {
        "right": sum(r.scores.get(metric) == 100 for r in page.results),
        "wrong": sum(r.scores.get(metric) == 0 for r in page.results),
        "better": sum(r.gains.get(metric, 0) > 0 for r in page.results),
        "worse": sum(r.gains.get(metric, 0) < 0 for r in page.results),
        "equal": sum(r.gains.get(metric) == 0 for r in page.results),
        "leak": sum(bool(r.leaks) for r in page.results),
        "copied": sum(bool(r.copied) for r in page.results),
        "missing": 1,
    }
    for outcome, number in expected.items():
        report.choose(outcome=outcome)
        assert report.count == number, outcome
    assert report.texts(".badge") == ["No answer"]
    assert "out of memory, three times" in report.texts(".card")[0]
    assert expected["leak"] > 0
    assert report.browser.count("#outcome option:disabled") == 0
    report.browser.click("#reset")
    report.choose(metric=1, outcome="better")
    assert report.count == sum(r.gains.get("mean-rank", 0) < 0 for r in page.results), "lower is better"


def test_the_gallery_begins_with_as_many_queries_as_it_can(small: tuple[Report, Page]) -> None:
    report, page = small
    queries = min(24, len({r.query for r in page.results}))
    assert len(report.titles) == 24
    assert len(set(report.titles[:queries])) == queries, "each once, before any is shown again"
    under = [text.rpartition(" · ")[2] for text in report.texts(".card .under")]
    assert len(set(under)) > 1, "and not all by one setting"
    report.search(f"#{min(r.id for r in page.queries)}")
    assert len(set(report.titles)) == 1, "a query alone shows all its settings"
    assert report.count == len(page.settings)
    report.browser.click("#reset")


def test_orders(small: tuple[Report, Page]) -> None:
    report, page = small
    gains = sorted((r.gains["vqa-accuracy"] for r in page.results if r.gains), reverse=True)[:24]

    def gain_texts() -> list[str]:
        return [t for t in report.texts(".gain") if t]

    report.choose(sort="gain")
    assert Counter("better" in t for t in gain_texts()) == Counter(g > 0 for g in gains)
    assert "▲ +100.0 better than zero-shot" in gain_texts()[0]
    report.choose(sort="loss")
    assert "▼ −100.0 worse than zero-shot" in gain_texts()[0]
    report.choose(sort="worst", method="i2i")
    assert report.texts(".card")[0].count("0.0") >= 1
    report.choose(sort="id")
    ids = [int(title.split()[1]) for title in report.titles]
    once = len(set(ids))
    assert ids[:once] == sorted(set(ids)), "each query once, by id, whatever settings are left"
    assert ids[once:] == sorted(ids[once:])


def test_pages_and_addresses(small: tuple[Report, Page]) -> None:
    report, page = small

    def captions() -> list[str]:
        return report.texts(".card .under")

    first = captions()
    report.browser.click(".strip .next")
    report.browser.until(lambda: captions() != first)
    assert report.browser.run("return location.hash") == "#?page=2"
    assert report.texts(".place") == ["Page 2 of 3"] * 2
    assert report.browser.run("return document.activeElement.id") == "count"
    report.browser.run("history.back()")
    report.browser.until(lambda: captions() == first)
    report.open("small", "#?q=red&view=pair&a=4&b=0&outcome=a-wins&sort=lead")
    assert report.browser.value("#q") == "red"
    assert report.browser.value("#outcome") == "a-wins"
    assert set(report.texts(".about strong")) == {"A wins"}
    report.open("small", "#?method=none-such&page=99&view=%00&metric=77&a=-1&sort=__proto__&outcome=constructor")
    assert report.count == len(page.results)
    assert report.texts(".place")[0] == "Page 3 of 3"
    report.open("small", "#sources")
    assert report.count == len(page.results)


def test_two_methods_side_by_side(small: tuple[Report, Page]) -> None:
    report, page = small
    report.choose(view="pair", a=4, b=2)
    answers = {(r.setting, r.query): r for r in page.results}
    leads = []
    for q in range(len(page.queries)):
        a, b = (answers[s, q].scores.get("vqa-accuracy") for s in (4, 2))
        leads.append(None if a is None or b is None else a - b)
    assert report.count == len(page.queries)
    assert [t.split(":")[0] for t in report.texts(".side h4")[:2]] == ["A", "B"]
    for outcome, number in (
        ("a-wins", sum(d is not None and d > 0 for d in leads)),
        ("b-wins", sum(d is not None and d < 0 for d in leads)),
        ("tie", sum(d == 0 for d in leads)),
    ):
        report.choose(outcome=outcome)
        assert report.count == number, outcome
    report.choose(outcome="", sort="behind")
    assert "B wins" in report.texts(".about")[0]
    assert report.browser.run("return document.querySelector('[data-for=one]').hidden")
    report.choose(view="one", outcome="better")
    assert report.browser.value("#sort") == "id", "an order of pairs is none of single answers"


def test_by_keyboard(small: tuple[Report, Page]) -> None:
    report, _ = small
    browser = report.browser
    browser.press("\ue004")
    assert browser.run("return document.activeElement.className") == "skip"
    browser.press("\ue007")
    browser.until(lambda: browser.run("return document.activeElement.id") == "gallery")
    browser.press("j")
    assert browser.run("return document.activeElement === document.querySelectorAll('.card')[0]")
    browser.press("jjk")
    assert browser.run("return document.activeElement === document.querySelectorAll('.card')[1]")
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("n")
    browser.until(lambda: report.texts(".place")[0] == "Page 2 of 3")
    browser.press("/")
    assert browser.run("return document.activeElement.id") == "q"
    browser.press("jnp")
    browser.until(lambda: browser.value("#q") == "jnp")
    browser.run("document.getElementById('reset').click(); document.getElementById('keys').click()")
    browser.run("document.querySelector('.card').focus()")
    browser.press("n")
    assert report.texts(".place")[0] == "Page 1 of 3", "keys are off"
    stops = []
    browser.run("document.querySelector('#q').focus()")
    for _ in range(9):
        browser.press("\ue004")
        stops.append(browser.run("return document.activeElement.id || document.activeElement.className"))
    assert stops == ["view", "method", "shots", "outcome", "metric", "sort", "reset", "next", ""]


def test_prompts_are_exact(small: tuple[Report, Page]) -> None:
    report, page = small
    report.search("#100")
    prompts = [r.prompt for r in page.results if r.query == 0]
    assert report.texts(".card pre") == prompts
    assert report.browser.run("return getComputedStyle(document.querySelector('pre')).whiteSpace") == "pre-wrap"
    report.browser.click(".card summary")
    assert report.browser.run("return document.querySelector('.card details').open")


def test_sequences(report: Report) -> None:
    report.browser.size(1280, 1000)
    report.open("sequences", page=pages.sequences)
    page = pages.sequences()
    assert report.count == sum(bool(r.demonstrations) for r in page.results)
    card = report.texts(".card")[0]
    best = page.results[0]
    for words in (
        f"{best.scores['value']:.3f}",
        f"{best.steps[0]:+.3f}",
        "no demonstrations",
        "Without ICDs",
    ):
        assert words.replace("-", "−") in card
    assert "null" not in card
    report.choose(method="beam 2", outcome="worse")
    assert report.count == sum(r.setting == 1 and r.gains["value"] < 0 for r in page.results)
    report.choose(view="pair", a=0, b=1, outcome="")
    assert report.count == len(page.queries)
    report.clean()


def test_evaluations_with_metrics_of_their_own(report: Report) -> None:
    """A result is shown in its evaluation's metric, and filters by data set and evaluation keep the two apart."""
    report.browser.size(1280, 1000)
    report.open("mixed", page=pages.mixed)
    page = pages.mixed()
    for place, (name, other) in enumerate((("vqa-accuracy", "cider"), ("cider", "vqa-accuracy"))):
        mine = [r for r in page.results if page.settings[r.setting].evaluation == place]
        for control in ("data", "source"):
            report.browser.click("#reset")
            report.choose(**{control: place})
            assert report.count == len(mine)
            cards = report.texts(".card")
            assert all(name in card and other not in card for card in cards if "No answer" not in card)
    report.choose(source=1, data="", outcome="better")
    assert report.count == sum(
        page.settings[r.setting].evaluation == 1 and r.gains.get("cider", 0) > 0 for r in page.results
    )
    report.browser.click("#reset")
    report.choose(view="pair")
    assert report.count == 6, "the first evaluation's first and last setting"
    report.choose(a=len(page.settings) - 1)
    assert report.texts(".empty") == ["A and B have no query in common."]
    report.clean()
