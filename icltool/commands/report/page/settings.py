"""What results.json tells of the settings of an evaluation: figures, paired tests, means over seeds, facts behind them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from icltool.commands.report.page.content import Comparison, SeedMeans, Shown, Source, TypeFigures
from icltool.commands.report.page.examples import DatasetKey
from icltool.commands.report.page.page_builder import readable
from icltool.contracts.evaluation import Analysis, EvaluationProvenance
from icltool.errors import StoreError
from icltool.results.costs import GIGA, cost_details, cost_notes, cost_of
from icltool.results.intervals import Interval, interval_of, known
from icltool.store import evaluations as stored
from icltool.store.checkpoint_names import checkpoint_name_in
from icltool.store.evaluations import RESULTS, SettingResult, predictions_file

#: The setting that gains are measured against.
ZERO_SHOT = "zero-shot"
ZERO = (ZERO_SHOT, 0, 0)

_UNNAMED = ("dataset", "task", "model", "dataset_fingerprint")
_TYPES = {"answer_type": "answer type", "question_type": "question type"}
_SIDES = ("mean", "low", "high", "sd", "min", "max")
_LEAKS = {"image": "image", "group": "near-duplicates", "question": "question", "text": "text"}


@dataclass(frozen=True)
class Evaluation:
    """An evaluation folder as it was read. `path` is as the user gave it, `position` its number on the page, `names` what
    methods are called that go by another name than their own."""

    position: int
    path: Path
    folder: Path
    results: Sequence[SettingResult]
    provenance: EvaluationProvenance
    analysis: Analysis
    names: Mapping[str, str] = field(default_factory=dict)

    def named(self, method: str) -> str:
        """What a method is called on the page."""
        return self.names.get(method, method)

    @property
    def configuration(self) -> Mapping[str, Any]:
        return mapping(self.provenance.get("configuration"))

    @property
    def key(self) -> DatasetKey:
        """The data set that it is of; an evaluation that does not tell is a data set of its own."""
        name, task, mark = (str(self.configuration.get(k) or "") for k in ("dataset", "task", "dataset_fingerprint"))
        queries = str(self.configuration.get("queries") or "validation")
        return DatasetKey(name or self.folder.resolve().name, task, mark, queries)

    @property
    def model(self) -> str:
        """The checkpoint's own name if there was a path, else the name of the model."""
        return checkpoint_name_in(self.configuration) or ""

    def predictions(self, result: SettingResult) -> Path:
        """Where the predictions of a setting lie. ValueError for a method whose name is no file name."""
        return predictions_file(self.folder, result.method, result.shots, result.seed)


def read_evaluation(path: Path, position: int) -> Evaluation:
    """The evaluation in a folder, or of a results.json. StoreError when it is missing, damaged or something else."""
    evaluation = stored.read_evaluation(path)
    return Evaluation(position, path, evaluation.folder, evaluation.results, evaluation.provenance, evaluation.analysis)


def with_names(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations, with the options beside the names of methods that several of one data set and model have with other
    options."""
    options_of_each = [{r.method: dict(mapping(r.extra.get("options"))) for r in e.results} for e in evaluations]
    named = []
    for evaluation, options in zip(evaluations, options_of_each, strict=True):
        names = {}
        for method, own in options.items():
            others = [
                one[method]
                for other, one in zip(evaluations, options_of_each, strict=True)
                if method in one and (other.key, other.model) == (evaluation.key, evaluation.model)
            ]
            keys = dict.fromkeys(key for one in others for key in one)
            differing = [key for key in keys if any(one.get(key) != own.get(key) for one in others)]
            differences = ", ".join(f"{key}={_brief(own[key])}" for key in differing if own.get(key) not in (None, ""))
            if differences and method != ZERO_SHOT:
                names[method] = f"{method} ({differences})"
        named.append(replace(evaluation, names=names))
    return named


def shown_settings(evaluation: Evaluation) -> list[Shown]:
    """One for each setting, in the order of results.json. StoreError where that is malformed."""
    zero = next((r for r in evaluation.results if _key(r) == ZERO), None)
    with _well_formed(evaluation):
        return [_setting_entry(evaluation, result, zero) for result in evaluation.results]


def comparisons(evaluation: Evaluation) -> list[Comparison]:
    """The paired tests: those between methods, then each setting against zero-shot. StoreError where they are malformed."""
    with _well_formed(evaluation):
        entries = [_compared(evaluation, entry) for entry in evaluation.analysis.get("differences", [])]
        named = {(c.first, c.second, c.metric) for c in entries}
        against = [c for c in _against_zero(evaluation) if (c.first, c.second, c.metric) not in named]
        return corrected([*entries, *against])


def corrected(tests: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's step-down correction (Holm 1979) over those of one metric whose p is known."""
    holm: dict[int, float] = {}
    for metric in {test.metric for test in tests}:
        ranked = sorted(
            (test.p, place) for place, test in enumerate(tests) if test.metric == metric and math.isfinite(test.p)
        )
        least = 0.0
        for rank, (p, place) in enumerate(ranked):
            least = max(least, min(1.0, (len(ranked) - rank) * p))
            holm[place] = least
    return [replace(test, holm=holm.get(place, math.nan)) for place, test in enumerate(tests)]


def means_over_seeds(evaluation: Evaluation) -> list[SeedMeans]:
    """For `Page.extra`: means over seeds with their spread. StoreError where they are malformed."""
    with _well_formed(evaluation):
        return [
            {
                "evaluation": evaluation.position,
                "method": readable(evaluation.named(entry["method"])),
                "shots": entry["shots"],
                "seeds": list(entry["seeds"]),
                "metrics": {name: {side: one[side] for side in _SIDES} for name, one in entry["metrics"].items()},
            }
            for entry in evaluation.analysis.get("seeds", [])
        ]


def figures_by_type(evaluation: Evaluation, first: int) -> list[TypeFigures]:
    """For `Page.extra`: figures over the queries of each type; `first` is the number of the first setting."""
    return [
        {
            "setting": place,
            "column": _TYPES.get(column, column),
            "value": readable(value),
            "queries": mapping(figures).get("queries"),
            "metrics": {name: figure for name, figure in mapping(figures).items() if name != "queries"},
        }
        for place, result in enumerate(evaluation.results, first)
        for column, table in mapping(result.extra.get("by")).items()
        for value, figures in mapping(table).items()
    ]


def sources(evaluations: Sequence[Evaluation], remarks: Mapping[int, Sequence[str]]) -> list[Source]:
    """What each evaluation is and how it was made; `remarks` by position. Titles that would be the same name what differs."""
    plain = [_title(evaluation) for evaluation in evaluations]
    described = []
    for evaluation, title in zip(evaluations, plain, strict=True):
        alike = [other for other, name in zip(evaluations, plain, strict=True) if name == title]
        if len(alike) > 1:
            title = f"{title}, {_distinction(evaluation, alike)}"
        own = tuple(map(readable, remarks.get(evaluation.position, ())))
        described.append(Source(readable(title), readable(evaluation.path), tuple(_lines(evaluation)), own))
    return described


def label(method: str, shots: int) -> str:
    """ "METHOD K-shot"; the method alone where it shows no demonstrations."""
    return readable(f"{method} {shots}-shot" if shots else method)


def configured(options: Iterable[tuple[str, object]]) -> list[tuple[str, str]]:
    """(label, value) lines of the options that are set."""
    lines = [(_named(name), value) for name, value in options if value not in (None, "", [], {}, ())]
    return [(readable(name), readable(_text(value))) for name, value in lines]


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _key(result: SettingResult) -> tuple[str, int, int]:
    return result.method, result.shots, result.seed


def _setting_entry(evaluation: Evaluation, result: SettingResult, zero: SettingResult | None) -> Shown:
    stored = mapping(mapping(result.extra.get("gains")).get("metrics"))
    gains = {name: interval_of(one) for name, one in stored.items()}
    if not gains and zero is not None and result is not zero:
        means = {
            name: (one.mean, zero.metrics[name].mean) for name, one in result.metrics.items() if name in zero.metrics
        }
        gains = {name: Interval(own - without, math.nan, math.nan) for name, (own, without) in means.items()}
    return Shown(
        evaluation=evaluation.position,
        method=readable(evaluation.named(result.method)),
        shots=result.shots,
        seed=result.seed,
        queries=result.queries,
        metrics={name: Interval(one.mean, one.low, one.high) for name, one in result.metrics.items()},
        gains=gains,
        cost=_cost(result),
        outcomes={name: (one["better"], one["worse"], one["equal"]) for name, one in stored.items()},
        lines=tuple(_facts(result)),
    )


def _cost(result: SettingResult) -> dict[str, float]:
    """What was measured per query, in the units of the tables."""
    cost = cost_of(result)
    flops = cost.get("flops")
    known = {
        "prompt tokens": cost.get("prompt_tokens"),
        "GFLOP": None if flops is None else flops / GIGA,
        "seconds": cost.get("seconds"),
    }
    return {name: float(value) for name, value in known.items() if value is not None}


def _facts(result: SettingResult) -> list[tuple[str, str]]:
    """(label, value) lines of what the answers tell behind the figures."""
    extra, facts = result.extra, []
    if leaks := mapping(extra.get("leaks")):
        counts = ", ".join(f"{name} {leaks.get(kind, 0)}" for kind, name in _LEAKS.items())
        facts.append((f"of {leaks.get('pairs')} demonstrations share with their query", counts))
    if copies := mapping(extra.get("copies")):
        right = copies.get("right")
        counts = f"{copies['answers']} ({100 * copies['share']:.0f} %)"
        facts.append(
            (
                "answers copied from a demonstration",
                counts if right is None else f"{counts}, {100 * right:.0f} % of them right",
            )
        )
    if orders := mapping(extra.get("orders")):
        for name, one in mapping(orders.get("metrics")).items():
            figures = f"{one['mean']:.1f}, sd {one['sd']:.1f}, {one['worst']:.1f} to {one['best']:.1f}"
            facts.append((f"{name} over {orders['count']} orders of the demonstrations", figures))
        facts.append(("queries that some order answers differently", f"{100 * orders.get('changed', math.nan):.0f} %"))
    if seeds := extra.get("seeds_alike"):
        facts.append(("seeds with the same demonstrations", ", ".join(map(str, [result.seed, *seeds]))))
    for kind, name in (("intervention", "intervention"), ("finetuned", "fine-tuned weights")):
        if file_facts := mapping(extra.get(kind)):
            facts.append((name, str(file_facts.get("file"))))
    if options := mapping(extra.get("options")):
        counts = _text({key: value for key, value in options.items() if value not in (None, "")})
        facts += [("method options", counts)] if counts else []
    if result.seconds > 0:
        facts.append(("seconds for all answers", f"{result.seconds:.1f}"))
    return [(readable(name), readable(value)) for name, value in facts]


def _compared(evaluation: Evaluation, entry: Mapping[str, Any]) -> Comparison:
    return Comparison(
        evaluation=evaluation.position,
        first=label(evaluation.named(entry["a"]), entry.get("a_shots", entry["shots"])),
        second=label(evaluation.named(entry["b"]), entry["shots"]),
        metric=entry["metric"],
        difference=interval_of(entry),
        p=known(entry.get("p")),
    )


def _against_zero(evaluation: Evaluation) -> list[Comparison]:
    """Each setting against zero-shot, as its gains tell; those of several seeds one by one."""
    seeds = Counter((result.method, result.shots) for result in evaluation.results)
    return [
        Comparison(
            evaluation=evaluation.position,
            first=label(evaluation.named(result.method), result.shots),
            second=ZERO_SHOT,
            metric=name,
            difference=interval_of(one),
            p=known(one.get("p")),
            seed=result.seed if seeds[result.method, result.shots] > 1 else None,
        )
        for result in evaluation.results
        for name, one in mapping(mapping(result.extra.get("gains")).get("metrics")).items()
    ]


def _title(evaluation: Evaluation) -> str:
    return ", ".join(part for part in (evaluation.key.label, evaluation.model) if part)


def _distinction(evaluation: Evaluation, alike: Sequence[Evaluation]) -> str:
    """The options in which evaluations with the same title differ; the folder's name where there are none."""
    keys = dict.fromkeys(key for other in alike for key in other.configuration)
    values = {key: {repr(other.configuration.get(key)) for other in alike} for key in keys}
    parts = [f"{_named(key)} {_text(evaluation.configuration.get(key))}" for key in keys if len(values[key]) > 1]
    return ", ".join(parts) or evaluation.folder.resolve().name


def _lines(evaluation: Evaluation) -> list[tuple[str, str]]:
    """How the evaluation was made: what its configuration sets."""
    key = evaluation.key
    known: list[tuple[str, object]] = [("data set", key.label), ("model", evaluation.model)]
    if evaluation.configuration.get("model_path"):
        known.append(("read as", evaluation.configuration.get("model")))
    known += [(name, value) for name, value in evaluation.configuration.items() if name not in _UNNAMED]
    known.append(("data set options", evaluation.provenance.get("dataset_options")))
    known.append(("fingerprint of the data set", key.fingerprint))
    known += mapping(evaluation.provenance.get("plugins")).items()
    costs = [*cost_details(evaluation.results), *cost_notes(evaluation.results)]
    known += [("costs", line.removeprefix("costs: ")) for line in costs]
    return configured(known)


def _named(option: str) -> str:
    return option.replace("_", " ")


def _text(value: object) -> str:
    """A configured value as people write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return "all" if value == -1 else str(value)


def _brief(value: object) -> str:
    """As `_text`, of paths their last part alone."""
    return _text(value).rstrip("/").rpartition("/")[2]


@contextmanager
def _well_formed(evaluation: Evaluation) -> Iterator[None]:
    """StoreError in place of what a results.json of another form raises."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{evaluation.folder / RESULTS} is malformed: {type(error).__name__} {error}",
            "run `icltool evaluate` again",
        ) from error
