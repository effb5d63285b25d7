"""The page as text: its policy, what it escapes, its tables, plots and colours."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import math
import re
from dataclasses import replace
from importlib.resources import files

import pytest

from icltool.commands.report.page.content import Comparison, Page, Thumbnail
from icltool.commands.report.page.payload import columns, images
from icltool.commands.report.page.render import SCRIPTS, render
from icltool.commands.report.page.table import differs, number, over_seeds
from icltool.results.intervals import Interval
from tests.commands.report.page import pages
from tests.commands.report.page.markup import Element, comparison_table, metric_table, parsed, rows

FILES = files("icltool.commands.report.page")
#: What stands on what, by the variables of page.css: text needs 4.5 to 1, controls and marks of figures 3 to 1.
TEXTS = [(ink, ground) for ink in ("ink", "muted", "accent", "good", "bad") for ground in ("paper", "raised")]
TEXTS += [("flag", "flag-paper"), ("ink", "flag-paper")]
MARKS = [(name, "paper") for name in ("control", "accent", *(f"series-{n}" for n in range(7)))]


@pytest.fixture(scope="module")
def page() -> Page:
    return pages.evaluations()


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render(page)


@pytest.fixture(scope="module")
def top(html: str) -> Element:
    return parsed(html)


@pytest.fixture(scope="module")
def hostile() -> Element:
    return parsed(render(pages.hostile()))


@pytest.fixture(scope="module")
def beams() -> Element:
    return parsed(render(pages.sequences()))


def payload(top: Element) -> dict[str, object]:
    [packed] = top.all("script", id="payload")
    content: dict[str, object] = json.loads(gzip.decompress(base64.b64decode(packed.text, validate=True)))
    return content


def digest(element: Element) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()


def test_the_policy_lets_in_what_is_there_and_nothing_else(top: Element) -> None:
    [policy] = [m.attributes["content"] for m in top.all("meta") if m.attributes.get("http-equiv")]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    styles, scripts = top.all("style"), [s for s in top.all("script") if "type" not in s.attributes]
    assert rules["style-src"].split() == [f"'{digest(style)}'" for style in styles]
    assert rules["script-src"].split() == [f"'{digest(script)}'" for script in scripts]
    assert (len(styles), len(scripts)) == (1, 2)
    assert {"require-trusted-types-for", "base-uri", "form-action"} <= set(rules)
    head = top.all("head")[0].children
    assert [e.tag for e in head[:2]] == ["meta", "meta"], "the policy stands before everything that it is about"


@pytest.mark.parametrize("kind", ["top", "hostile", "beams"])
def test_nothing_is_fetched_and_nothing_runs_but_the_scripts(kind: str, request: pytest.FixtureRequest) -> None:
    for element in request.getfixturevalue(kind).all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), name
            assert name != "style", "the policy would not let it count"
            if name in {"src", "href", "action", "data", "poster", "srcset"}:
                assert value.startswith(("#", "data:")), value
            if element.tag in {"path", "use", "g", "svg", "text", "rect"}:
                assert "://" not in value
    style = (FILES / "page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_scripts_make_no_markup_of_data() -> None:
    for name in (*SCRIPTS, "theme.js"):
        script = (FILES / name).read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
            assert word not in script, f"{name}: {word}"
        for word in ("</script", "<!--", "http://", "https://"):
            assert word not in script.lower(), f"{name}: {word}"


@pytest.mark.parametrize("kind", ["top", "hostile", "beams"])
def test_ids_are_unique_and_every_reference_has_one(kind: str, request: pytest.FixtureRequest) -> None:
    top = request.getfixturevalue(kind)
    ids = [e.attributes["id"] for e in top.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in top.all():
        for name, value in element.attributes.items():
            if name in {"for", "aria-labelledby", "aria-describedby"}:
                assert set(value.split()) <= set(ids)
            if name == "href" and value.startswith("#"):
                assert value[1:] in ids
            if match := re.match(r"url\(#(.+)\)", value):
                assert match[1] in ids


def test_headings_follow_one_another(top: Element, beams: Element) -> None:
    for page in (top, beams):
        levels = [int(e.tag[1]) for e in page.all() if re.fullmatch(r"h[1-6]", e.tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), levels
        assert [e.tag for e in page.all("body")[0].children if e.tag in {"header", "main", "footer"}] == [
            "header",
            "main",
            "footer",
        ]


def test_hostile_texts_stay_texts(top: Element, hostile: Element) -> None:
    assert {e.tag for e in hostile.all()} <= {e.tag for e in top.all()} | {"ul", "li"}
    assert len(hostile.all("script")) == len(top.all("script"))
    [title] = hostile.all("h1")
    assert title.text == pages.HOSTILE[0]
    assert [e.text for e in hostile.all("ul", class_="remarks")[0].children] == list(pages.HOSTILE)
    texts = [e.text for e in hostile.all("dd")]
    assert set(pages.HOSTILE) <= set(texts)
    methods = {row[0] for table in hostile.all("table") for row in rows(table)}
    assert set(pages.HOSTILE[:2]) <= methods


def test_the_payload_is_the_gallery_unchanged(page: Page, top: Element, hostile: Element) -> None:
    assert payload(top) == json.loads(json.dumps(columns(page)))
    results = payload(hostile)["results"]
    assert isinstance(results, dict)
    assert results["prompt"][0] == "\n".join(pages.HOSTILE)
    assert set(results["answer"]) == set(pages.HOSTILE)
    [listed] = top.all("script", id="images")
    assert json.loads(listed.text) == [p.source for p in page.images]


def test_images_are_images_within_the_page(page: Page) -> None:
    for source in ("https://example.org/a.png", "data:text/html,<script>", "javascript:alert(1)"):
        with pytest.raises(ValueError, match="image"):
            images(replace(page, images=(Thumbnail(source, 1, 1),)))
    written = images(replace(page, images=(Thumbnail("data:image/webp;base64,</script>&", 1, 1),)))
    assert "<" not in written
    assert json.loads(written) == ["data:image/webp;base64,</script>&"]


def test_the_same_page_twice_is_the_same_file(page: Page, html: str) -> None:
    assert render(pages.evaluations()) == html
    assert render(replace(page, title="other")) != html


def test_tables_hold_the_figures(page: Page, top: Element) -> None:
    table = top.all("table")[0]
    header, *body = rows(table)
    assert header == ["method", "0-shot", "2-shot", "4-shot"]
    figures = {(s.method, s.shots): s.metrics["vqa-accuracy"] for s in page.settings}
    random = figures["random", 2]
    expected = f"{random.mean:.1f} [{random.low:.1f}, {random.high:.1f}]"
    assert dict(zip(header, next(r for r in body if r[0] == "random"), strict=True))["2-shot"] == expected
    assert body[0][2:] == ["–", "–"], "zero-shot has no shots"
    best = {f"{max(i.mean for (_, k), i in figures.items() if k == shots):.1f}" for shots in (2, 4)}
    assert {e.text for e in table.all("strong", class_="best")} == best


def test_lower_is_better_where_it_is(page: Page) -> None:
    table = parsed(metric_table(page, page.settings, "mean-rank"))
    means = [s.metrics["mean-rank"].mean for s in page.settings if s.shots == 4]
    assert f"{min(means):.1f}" in {e.text for e in table.all("strong", class_="best")}
    assert "lower is better" in table.all("caption")[0].text


@pytest.mark.parametrize(
    ("low", "high", "holm", "metric", "said"),
    [
        (1.0, 3.0, 0.01, "vqa-accuracy", "a is better"),
        (1.0, 3.0, 0.2, "vqa-accuracy", "a is better, but not after correction"),
        (1.0, 3.0, math.nan, "vqa-accuracy", "a is better"),
        (-3.0, -1.0, 0.01, "vqa-accuracy", "b is better"),
        (-3.0, -1.0, 0.01, "mean-rank", "a is better"),
        (-1.0, 2.0, 0.01, "vqa-accuracy", "undecided"),
        (math.nan, math.nan, math.nan, "vqa-accuracy", "undecided"),
    ],
)
def test_paired_tests_say_who_is_better(
    page: Page, low: float, high: float, holm: float, metric: str, said: str
) -> None:
    one = Comparison(0, "a", "b", metric, Interval((low + high) / 2, low, high), 0.01, holm)
    header, row = rows(parsed(comparison_table(page, [one])))
    assert dict(zip(header, row, strict=True))["in words"] == said
    assert differs(one) == said.endswith("better")


def test_every_paired_test_has_its_row(page: Page, top: Element) -> None:
    [table] = [t for t in top.all("table") if "same queries" in t.all("caption")[0].text]
    _, *body = rows(table)
    assert [row[0] for row in body] == [f"{c.first} − {c.second}" for c in page.comparisons]


def test_figures_without_a_number_are_dashes(page: Page) -> None:
    nan = Interval(math.nan, math.nan, math.nan)
    unknown = replace(page.settings[1], metrics={"vqa-accuracy": nan}, gains={}, outcomes={})
    written = render(replace(page, settings=(page.settings[0], unknown), results=(), comparisons=(), extra={}))
    table = parsed(written).all("table")[0]
    assert rows(table)[2][2] == "–"
    assert [number(v, 1, signed=True) for v in (-0.04, 0.04, -2.0, math.inf)] == ["0.0", "0.0", "−2.0", "–"]


def test_means_over_seeds_stand_for_their_seeds(page: Page) -> None:
    one = page.settings[1]
    settings = [page.settings[0], *(replace(one, seed=seed) for seed in (0, 1, 2)), replace(one, shots=9, seed=1)]
    mean = {"mean": 41.0, "low": 40.0, "high": 42.0}
    entry = {"method": one.method, "shots": one.shots, "seeds": [0, 1], "metrics": {"vqa-accuracy": mean}}
    merged = over_seeds(settings, [entry])
    assert [(s.method, s.shots, s.seed) for s in merged[1:]] == [
        (one.method, 2, 0),
        (one.method, 2, 2),
        (one.method, 9, 1),
    ]
    assert merged[1].metrics["vqa-accuracy"] == Interval(41.0, 40.0, 42.0)
    assert merged[1].cost == one.cost
    assert over_seeds(settings, []) == settings


def test_plots_are_named_and_coloured_by_the_page(top: Element, beams: Element) -> None:
    plots = top.all("svg", role="img") + beams.all("svg", role="img")
    assert len(plots) > 8
    for plot in plots:
        title, description = plot.children[:2]
        assert (title.tag, description.tag) == ("title", "desc")
        assert plot.attributes["aria-labelledby"] == f"{title.attributes['id']} {description.attributes['id']}"
        assert title.text
        assert len(description.text) > 20
        colours = {e.attributes[k] for e in plot.all() for k in ("fill", "stroke") if k in e.attributes}
        assert all(c == "none" or re.fullmatch(r"var\(--[a-z0-9-]+\)", c) for c in colours), colours
    texts = [e.text for e in plots[0].all("text")]
    assert {"vqa-accuracy", "shots", "2", "4"} <= set(texts)
    legend = top.all("ul", class_="legend")[0]
    assert [e.text.strip() for e in legend.all("li")] == ["zero-shot", "random", "i2i"]
    drawn = {e.attributes.get("stroke") for e in plots[0].all("path")}
    assert {"var(--series-1)", "var(--series-2)"} <= drawn


def test_a_page_with_little_on_it() -> None:
    page = pages.evaluations(2, 2, (1,), 2)
    bare = replace(page, settings=(), comparisons=(), queries=(), demonstrations=(), images=(), results=(), extra={})
    assert parsed(render(bare)).all("table") == []
    assert parsed(render(replace(bare, sources=(), kind="sequences"))).all("h1")
    odd = replace(bare, title="half a \ud800 pair")
    assert "half a ? pair" in render(odd).encode("utf-8").decode()


def test_sequences_show_what_to_judge_them_by(beams: Element) -> None:
    facts = {row.children[0].text: row.children[1].text for row in beams.all("dl", class_="facts")[0].children}
    assert facts["Anchors"] == "12 of 24 finished, 12 shown below"
    assert facts["Demonstrations that two beams of an anchor share"] == "42.0 %"
    captions = [t.all("caption")[0].text for t in beams.all("table")]
    for words in ("Gains by beam", "Gains by step", "Most chosen demonstrations"):
        assert any(c.startswith(words) for c in captions), captions
    assert parsed(render(replace(pages.sequences(), extra={}))).all("table")


def _variables() -> dict[str, tuple[str, str]]:
    matches = re.findall(
        r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", (FILES / "page.css").read_text()
    )
    return {name: (light, dark) for name, light, dark in matches}


def _luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_contrast_is_enough_in_both_modes(mode: int) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    variables = _variables()
    for pairs, least in ((TEXTS, 4.5), (MARKS, 3.0)):
        for ink, ground in pairs:
            result = contrast(variables[ink][mode], variables[ground][mode])
            assert result >= least, f"{ink} on {ground}: {result:.2f}"


def test_every_colour_of_the_page_is_a_variable() -> None:
    style = (FILES / "page.css").read_text()
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", style)) <= set(_variables())
    assert not re.findall(r"(?:color|background|border|outline)[^;{]*#[0-9a-f]{3,6}", style)
