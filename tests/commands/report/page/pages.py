"""Pages to draw: as large as wanted, with drawn images and words like those of real data; the same each time."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from icltool.commands.report.page.content import (
    Comparison,
    Demonstration,
    Page,
    Query,
    Result,
    Shown,
    Source,
    Thumbnail,
)
from icltool.results.intervals import Interval

SHAPES = ("circle", "square", "triangle", "star", "ring", "bar")
COLOURS = {"red": "#c8402f", "green": "#3a8f4b", "blue": "#2f5fc0", "yellow": "#d9b13b", "purple": "#7d4fa8"}
METHODS = ("zero-shot", "random", "i2i", "lever-lm", "live", "leverage-by-similarity", "mmices", "i2t", "t2t")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "<!--<script>",
    "'; alert(4); //",
    "\u202etxet desrever\u2066 end",
    "javascript:alert(5)",
    "&lt;b&gt;&amp;",
    "a" * 400,
    "$plain_title ${payload} $\\frac{1}{2}$ {{7*7}}",
    "line\nbreak\ttab \x07",
)


def image(shape: str, colour: str, size: tuple[int, int], rng: np.random.Generator) -> Thumbnail:
    """A shape on a grey ground with some noise, as a WebP of `size` pixels."""
    width, height = size
    ground = rng.integers(190, 235)
    noise = rng.normal(ground, 9, (height // 4 + 1, width // 4 + 1, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    radius = min(size) * rng.uniform(0.2, 0.32)
    x, y = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.4, 0.6)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=COLOURS[colour])
    elif shape == "ring":
        draw.ellipse(box, outline=COLOURS[colour], width=max(2, int(radius / 3)))
    elif shape == "bar":
        draw.rectangle((x - radius, y - radius / 4, x + radius, y + radius / 4), fill=COLOURS[colour])
    else:
        sides = {"triangle": 3, "square": 4, "star": 5}[shape]
        draw.regular_polygon((x, y, radius), sides, rotation=int(rng.integers(0, 90)), fill=COLOURS[colour])
    written = io.BytesIO()
    image.save(written, "WEBP", quality=60, method=0)
    return Thumbnail("data:image/webp;base64," + base64.b64encode(written.getvalue()).decode(), width, height)


def _scene(rng: np.random.Generator) -> tuple[str, str]:
    return str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))


def evaluations(
    queries: int = 12, methods: int = 3, shots: tuple[int, ...] = (2, 4), icds: int = 40, seed: int = 0
) -> Page:
    """One evaluation of VQA: the first method is zero-shot, the rest come with each number of shots.

    There are leaks, copies, raw answers, and one missing answer; the second metric is lower-is-better.
    """
    rng = np.random.default_rng(seed)
    images: list[Thumbnail] = []
    page_queries, examples = [], []
    for i in range(icds):
        shape, colour = _scene(rng)
        images.append(image(shape, colour, (112, 84), rng))
        examples.append(Demonstration(9000 + i, f"What colour is the {shape} near the window?", colour, (i,)))
    for i in range(queries):
        shape, colour = _scene(rng)
        images.append(image(shape, colour, (208, 156), rng))
        answers = (colour,) * 8 + ("grey", "dark " + colour)
        question = f"What colour is the {shape} in the middle of the image?"
        page_queries.append(Query(100 + 7 * i, "rooms (vqa)", question, answers, (icds + i,)))
    names = METHODS[:methods]
    places = [(0, "zero-shot", 0)] + [(0, name, k) for name in names[1:] for k in shots]
    results, base = [], {}
    for place, (_, name, k) in enumerate(places):
        for q, query in enumerate(page_queries):
            chosen = tuple(int(d) for d in rng.choice(icds, k, replace=False))
            results.append(_answer(place, q, query, chosen, examples, names.index(name), base, rng))
    results[-1] = replace(results[-1], answer="", raw="", scores={}, gains={}, missing="out of memory, three times")
    settings = tuple(_setting(p, results, *place) for p, place in enumerate(places))
    return Page(
        kind="evaluations",
        title="Rooms: demonstrations chosen five ways",
        made="Made on 21 November 2026 at 14:05 UTC",
        version="0.0.0",
        sources=(Source("tiny-idefics on rooms (vqa)", "evaluations/rooms", _LINES, ("one answer is missing",)),),
        metrics=("vqa-accuracy", "mean-rank"),
        settings=settings,
        comparisons=_comparisons(settings),
        queries=tuple(page_queries),
        demonstrations=tuple(examples),
        images=tuple(images),
        results=tuple(results),
        lower_is_better=frozenset({"mean-rank"}),
        extra=_extra(settings),
    )


_LINES = (
    ("model", "tiny-idefics, float32, cpu"),
    ("queries", "validation split, leak guard: near-duplicates"),
    ("command", "icltool evaluate --method i2i --method lever-lm --shots 2,4"),
)


def _answer(
    place: int,
    q: int,
    query: Query,
    chosen: tuple[int, ...],
    examples: list[Demonstration],
    skill: int,
    base: dict[int, tuple[float, float]],
    rng: np.random.Generator,
) -> Result:
    k = len(chosen)
    right = rng.random() < 0.3 + 0.1 * skill + 0.02 * k
    answer = query.references[0] if right else str(rng.choice([*COLOURS, "grey", "a shape"]))
    accuracy = 100.0 if answer == query.references[0] else 30.0 if answer in query.references else 0.0
    rank = float(rng.integers(1, 6)) if accuracy < 100 else 1.0
    zero = base.setdefault(q, (accuracy, rank))
    blocks = [f"Question: {examples[d].text} Short answer: {examples[d].label}<|endofchunk|>" for d in chosen]
    return Result(
        setting=place,
        query=q,
        demonstrations=chosen,
        prompt="".join(f"<image>{b}\n" for b in blocks) + f"<image>Question: {query.question} Short answer:",
        answer=answer,
        raw=f" {answer}.\nQuestion" if rng.random() < 0.3 else answer,
        scores={"vqa-accuracy": accuracy, "mean-rank": rank},
        gains={"vqa-accuracy": accuracy - zero[0], "mean-rank": rank - zero[1]} if k else {},
        leaks={"question": 1, "image": 1} if k and rng.random() < 0.03 else {},
        copied=tuple(i for i, d in enumerate(chosen) if examples[d].label == answer)[:1],
    )


def _interval(values: list[float]) -> Interval:
    mean, half = float(np.mean(values)), 1.96 * float(np.std(values)) / max(1, len(values)) ** 0.5
    return Interval(mean, mean - half, mean + half)


def _setting(place: int, results: list[Result], evaluation: int, method: str, shots: int) -> Shown:
    mine = [r for r in results if r.setting == place]
    metrics = {m: _interval([r.scores[m] for r in mine if r.scores]) for m in ("vqa-accuracy", "mean-rank")}
    gains = {m: _interval([r.gains[m] for r in mine if r.gains]) for m in metrics} if shots else {}
    own_gains = [r.gains["vqa-accuracy"] for r in mine if r.gains]
    counts = (sum(g > 0 for g in own_gains), sum(g < 0 for g in own_gains), sum(g == 0 for g in own_gains))
    cost = {"GFLOP": 18.0 + 21.0 * shots, "prompt tokens": 12.0 + 19.0 * shots, "seconds": 0.031 + 0.02 * shots}
    return Shown(
        evaluation=evaluation,
        method=method,
        shots=shots,
        seed=0,
        queries=len(mine),
        metrics=metrics,
        gains=gains,
        cost=cost,
        outcomes={"vqa-accuracy": counts} if shots else {},
        lines=(("answers copied from a demonstration", f"{sum(bool(r.copied) for r in mine)}"),) if shots else (),
    )


def _comparisons(settings: tuple[Shown, ...]) -> tuple[Comparison, ...]:
    comparisons = []
    for one in settings[1:]:
        for other in settings[1:]:
            if one.shots == other.shots and one.method < other.method:
                gap = one.metrics["vqa-accuracy"].mean - other.metrics["vqa-accuracy"].mean
                names = f"{one.method} {one.shots}-shot", f"{other.method} {other.shots}-shot"
                p = float(np.exp(-abs(gap)))
                difference = Interval(gap, gap - 6.1, gap + 6.4)
                comparisons.append(Comparison(0, *names, "vqa-accuracy", difference, p, min(1.0, 3 * p)))
    return tuple(comparisons)


def _extra(settings: tuple[Shown, ...]) -> dict[str, Any]:
    last = settings[-1]
    figure = last.metrics["vqa-accuracy"]
    around = {"mean": figure.mean, "low": figure.low, "high": figure.high, "sd": 1.2, "min": 40.0, "max": 51.5}
    types = [
        {"setting": i, "column": "answer type", "value": v, "queries": n, "metrics": {"vqa-accuracy": 40.0 + 3 * i + n}}
        for i in range(len(settings))
        for v, n in (("other", 8), ("yes/no", 4))
    ]
    seeds = {"evaluation": 0, "method": last.method, "shots": last.shots, "seeds": [0, 1, 2]}
    return {"seeds": [{**seeds, "metrics": {"vqa-accuracy": around}}], "types": types}


def mixed() -> Page:
    """Two evaluations of different data sets, each with a metric of its own."""
    one, other = evaluations(6, 2, (2,), 10), evaluations(5, 2, (2,), 10, seed=1)
    queries, icds, images = len(one.queries), len(one.demonstrations), len(one.images)

    def setting(item: Shown, name: str, place: int) -> Shown:
        metrics = {name: item.metrics["vqa-accuracy"]}
        return replace(item, evaluation=place, metrics=metrics, gains={}, outcomes={})

    def result(item: Result, name: str) -> Result:
        scores, gains = ({name: f["vqa-accuracy"]} if "vqa-accuracy" in f else {} for f in (item.scores, item.gains))
        return replace(item, scores=scores, gains=gains)

    moved = [
        replace(
            result(r, "cider"),
            setting=r.setting + len(one.settings),
            query=r.query + queries,
            demonstrations=tuple(d + icds for d in r.demonstrations),
        )
        for r in other.results
    ]
    return replace(
        one,
        sources=(*one.sources, replace(other.sources[0], title="tiny-idefics on streets (caption)")),
        metrics=("vqa-accuracy", "cider"),
        lower_is_better=frozenset(),
        settings=(
            *(setting(s, "vqa-accuracy", 0) for s in one.settings),
            *(setting(s, "cider", 1) for s in other.settings),
        ),
        comparisons=(),
        queries=(
            *one.queries,
            *(
                replace(q, dataset="streets (caption)", images=tuple(image + images for image in q.images))
                for q in other.queries
            ),
        ),
        demonstrations=(
            *one.demonstrations,
            *(replace(d, images=tuple(image + images for image in d.images)) for d in other.demonstrations),
        ),
        images=(*one.images, *other.images),
        results=(*(result(r, "vqa-accuracy") for r in one.results), *moved),
        extra={},
    )


def sequences(anchors: int = 12, beams: int = 3, shots: int = 4, icds: int = 40, seed: int = 0) -> Page:
    """Generated sequences of a captioning task, with the figures that are gathered from them."""
    rng = np.random.default_rng(seed)
    page = evaluations(anchors, 1, (), icds, seed)
    examples = tuple(
        replace(d, text="", label=f"a {d.label} thing {d.id} stands by the window") for d in page.demonstrations
    )
    queries = tuple(
        replace(q, question="", dataset="rooms (caption)", references=(f"a {q.references[0]} shape in a room",))
        for q in page.queries
    )
    results = []
    for q in range(anchors):
        base = float(rng.normal(-3, 0.4))
        for beam in range(beams):
            steps = tuple(float(v) for v in rng.normal(0.12 - 0.03 * beam, 0.2, shots))
            value = base + sum(steps)
            chosen = tuple(int(d) for d in rng.choice(icds, shots, replace=False))
            scores = {"value": value, "log-probability": 8 * value, "score": sum(steps)}
            gains = {"value": sum(steps), "log-probability": 8 * sum(steps)}
            results.append(Result(beam, q, chosen, scores=scores, gains=gains, steps=steps))
        results.append(Result(beams, q, (), scores={"value": base, "log-probability": 8 * base}))
    return replace(
        page,
        kind="sequences",
        title="Training sequences of rooms (caption)",
        sources=(Source("sequences of tiny-idefics", "sequences/rooms.h5", _LINES[:1]),),
        metrics=("value", "log-probability"),
        lower_is_better=frozenset(),
        settings=_beams(results, beams, shots, anchors),
        comparisons=(),
        queries=queries,
        demonstrations=examples,
        results=tuple(results),
        extra=_search(results, beams, shots, anchors, examples),
    )


def _beams(results: list[Result], beams: int, shots: int, anchors: int) -> tuple[Shown, ...]:
    settings = []
    for place in range(beams + 1):
        mine = [r for r in results if r.setting == place]
        metrics = {m: _interval([r.scores[m] for r in mine]) for m in ("value", "log-probability")}
        gains = {m: _interval([r.gains[m] for r in mine]) for m in metrics} if place < beams else {}
        name = f"beam {place + 1}" if place < beams else "no demonstrations"
        settings.append(Shown(0, name, shots if place < beams else 0, 0, anchors, metrics, gains))
    return tuple(settings)


def _search(
    results: list[Result], beams: int, shots: int, anchors: int, examples: tuple[Demonstration, ...]
) -> dict[str, Any]:
    edges = [round(-1.5 + 0.25 * i, 2) for i in range(15)]
    best = [r for r in results if r.setting == 0]

    def spread(values: list[float], key: str, number: int) -> dict[str, Any]:
        low, median, high = (float(v) for v in np.quantile(values, (0.05, 0.5, 0.95)))
        counts = [int(n) for n in np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]]
        positive = float(np.mean(np.array(values) > 0))
        about = {"mean": float(np.mean(values)), "median": median, "q05": low, "q95": high, "positive": positive}
        return {key: number, "counts": counts, **about, "anchors": anchors}

    times = np.bincount([d for r in results for d in r.demonstrations], minlength=len(examples))
    top = np.argsort(-times, kind="stable")[:20]
    worse = sum(r.gains["value"] < 0 for r in best)
    by_beam = [[r.gains["value"] for r in results if r.setting == b] for b in range(beams)]
    return {
        "anchors": {"shown": anchors, "finished": anchors, "total": 2 * anchors},
        "gains": {"edges": edges, "beams": [spread(v, "beam", b + 1) for b, v in enumerate(by_beam)]},
        "steps": {
            "edges": edges,
            "steps": [spread([r.steps[s] for r in best], "step", s + 1) for s in range(shots)],
        },
        "worse": {"anchors": anchors, "worse": worse, "share": worse / anchors},
        "hubness": {
            "of": "all beams",
            "distinct": int((times > 0).sum()),
            "chosen": int(times.sum()),
            "pool": len(examples),
            "index": 5000,
            "skewness": 1.3,
            "top_share": 0.04,
            "times": [[int(t), int((times == t).sum())] for t in np.unique(times) if t],
            "top": [
                {"id": examples[d].id, "count": int(times[d]), "share": times[d] / anchors, "demonstration": int(d)}
                for d in top
            ],
        },
        "diversity": {"sequences": beams * anchors, "distinct": beams * anchors, "overlap": 0.42, "per_anchor": 7.4},
    }


def hostile() -> Page:
    """Every text of the page is one that would do harm where it were taken for markup."""
    page = evaluations(queries=len(HOSTILE), methods=3, shots=(2,), icds=len(HOSTILE))

    def bad(i: int) -> str:
        return HOSTILE[i % len(HOSTILE)]

    names = ["zero-shot", *HOSTILE[:2]]
    settings = tuple(
        replace(
            s,
            method=names[i],
            lines=((bad(i), bad(i + 1)),),
            metrics={**s.metrics, bad(1): Interval(1, 0, 2), bad(10): Interval(2, 0, 3)},
            cost={bad(i): 1.0 + i for i in range(len(HOSTILE))},
        )
        for i, s in enumerate(page.settings)
    )
    return replace(
        page,
        title=bad(0),
        made=bad(1),
        remarks=HOSTILE,
        sources=(Source(bad(2), bad(1), tuple(zip(HOSTILE, HOSTILE, strict=True)), HOSTILE),),
        metrics=("vqa-accuracy", bad(1), bad(10)),
        settings=settings,
        comparisons=(Comparison(0, bad(0), bad(2), bad(1), Interval(1, 0.5, 2), 0.01, 0.02),),
        queries=tuple(
            replace(q, dataset=bad(i % 2), question=bad(i), references=HOSTILE) for i, q in enumerate(page.queries)
        ),
        demonstrations=tuple(replace(d, text=bad(i), label=bad(i + 1)) for i, d in enumerate(page.demonstrations)),
        results=tuple(
            replace(
                r,
                prompt="\n".join(HOSTILE),
                answer=bad(i),
                raw=bad(i + 1),
                leaks={bad(i): 1},
                copied=(0,) if r.demonstrations else (),
                missing=bad(i) if i % 5 == 4 else "",
                scores={**r.scores, bad(1): 1.0, bad(10): 2.0},
            )
            for i, r in enumerate(page.results)
        ),
        extra={},
    )
