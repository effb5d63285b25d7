"""A page of evaluations, of any data sets, models and tasks together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from icltool.commands.report.page.content import Page, Result
from icltool.commands.report.page.examples import DatasetKey, Examples, given_up, unfinished, workspaces_of
from icltool.commands.report.page.page_builder import Catalogue, Draft, drawn, readable, sample_remark
from icltool.commands.report.page.settings import (
    ZERO,
    Evaluation,
    comparisons,
    figures_by_type,
    mapping,
    means_over_seeds,
    read_evaluation,
    shown_settings,
    sources,
    with_names,
)
from icltool.commands.report.page.times import ImageTimes, changed_at
from icltool.contracts import Example
from icltool.errors import StoreError
from icltool.results.grid import lower_is_better
from icltool.results.intervals import known
from icltool.results.privacy import without_places
from icltool.results.published import published_for, published_lines
from icltool.store.evaluations import RESULTS, SettingResult, read_predictions

Row: TypeAlias = Mapping[str, Any]
#: The split that demonstrations of evaluations come from.
_INDEX = "train"
#: Data sets that a heading names.
_NAMED = 4
_BROKEN = (AttributeError, KeyError, TypeError, ValueError)


def evaluations_page(
    paths: Sequence[Path], workspace: Path, queries: int = 400, seed: int = 0, title: str = ""
) -> Draft:
    """The page of these evaluation folders (or results.json files), images still to be made.

    The gallery has `queries` of the queries (-1 all); see `chosen_queries`. Raises StoreError for a results.json that is
    missing or damaged. What else is missing (predictions, the data set, or the version of it that was evaluated) is
    remarked, and the page shows what is there. Further orders of demonstrations are figures of their settings, and not in
    the gallery.
    """
    evaluations = with_names([read_evaluation(path, position) for position, path in enumerate(paths)])
    settings = [in_gallery for evaluation in evaluations for in_gallery in shown_settings(evaluation)]
    tests = tuple(test for evaluation in evaluations for test in comparisons(evaluation))
    firsts = [sum(len(e.results) for e in evaluations[: e.position]) for e in evaluations]
    gathering = _Gathering(evaluations, workspace, queries, seed)
    gathering.gather()
    metrics = tuple(dict.fromkeys(name for setting in settings for name in setting.metrics))
    in_gallery = len(gathering.catalogue.queries)
    page = Page(
        kind="evaluations",
        title=readable(title or without_places(_title(evaluations), workspace)),
        sources=tuple(sources(evaluations, gathering.remarks)),
        metrics=metrics,
        settings=tuple(settings),
        comparisons=tests,
        results=tuple(gathering.results),
        lower_is_better=frozenset(filter(lower_is_better, metrics)),
        remarks=(*sample_remark(in_gallery, gathering.known, "queries", seed), *gathering.notes),
        extra={
            "seeds": [entry for evaluation in evaluations for entry in means_over_seeds(evaluation)],
            "types": [entry for e in evaluations for entry in figures_by_type(e, firsts[e.position])],
            "shown": {"queries": in_gallery, "of": gathering.known},
        },
    )
    return gathering.catalogue.draft(page, workspace)


def chosen_queries(
    known: Sequence[tuple[DatasetKey, Sequence[int]]], count: int, seed: int
) -> dict[DatasetKey, list[int]]:
    """Ids of `count` queries (-1 all) by data set, ascending, out of each evaluation's data set and ids.

    Data sets get the same number, as far as they have so many. Queries that more evaluations have come first, so that
    evaluations can be set side by side; those of equally many are drawn by `seed`.
    """
    times: dict[DatasetKey, Counter[int]] = {}
    for key, ids in known:
        times.setdefault(key, Counter()).update(set(ids))
    if count < 0:
        return {key: sorted(counter) for key, counter in times.items()}
    shares: dict[DatasetKey, int] = {}
    left = count
    for place, key in enumerate(sorted(times, key=lambda key: len(times[key]))):
        shares[key] = min(len(times[key]), left // (len(times) - place))
        left -= shares[key]
    chosen: dict[DatasetKey, list[int]] = {key: [] for key in times}
    for key, counter in times.items():
        for level in sorted(set(counter.values()), reverse=True):
            alike = [one for one, times_seen in counter.items() if times_seen == level]
            chosen[key] += drawn(alike, shares[key] - len(chosen[key]), seed)
        chosen[key].sort()
    return chosen


@dataclass(frozen=True)
class _Answers:
    """The rows of one setting by query id, as far as they are shown, and when they were written (seconds since the epoch);
    `missing` says why there are none."""

    rows: Mapping[int, Row] = field(default_factory=dict)
    missing: str = ""
    made: float | None = None


class _Gathering:
    """Reads predictions one setting after another, and keeps the rows of the queries that are shown.

    `remarks` are by evaluation, `notes` of data sets; `known` is how many queries there are.
    """

    def __init__(self, evaluations: Sequence[Evaluation], workspace: Path, queries: int, seed: int) -> None:
        self.evaluations, self.workspace = evaluations, workspace
        self.remarks = {
            e.position: [
                *unfinished(e.folder),
                *given_up(e.folder / RESULTS, "icltool evaluate"),
                *published_lines(published_for(e.configuration, {name for r in e.results for name in r.metrics})),
            ]
            for e in evaluations
        }
        self.notes: list[str] = []
        self.catalogue = Catalogue()
        self.results: list[Result] = []
        asked_for = [(evaluation.key, self._ids(evaluation)) for evaluation in evaluations]
        self.known = len({(key, one) for key, ids in asked_for for one in ids})
        self.chosen = chosen_queries(asked_for, queries, seed)
        self.labels = _labels(self.chosen)
        self.times: dict[DatasetKey, ImageTimes] = {}
        self.rules: dict[tuple[DatasetKey, int], str] = {}

    def gather(self) -> None:
        """Fills `catalogue`, `results`, `remarks` and `notes`."""
        answers = [[self._answers(e, result) for result in e.results] for e in self.evaluations]
        examples = {key: self._examples(key, answers) for key in self.chosen}
        for key in self.chosen:
            self._queries(key, answers, examples[key][0])
        setting = 0
        for evaluation, of_settings in zip(self.evaluations, answers, strict=True):
            zero = next((a for r, a in zip(evaluation.results, of_settings, strict=True) if _is_zero(r)), _Answers())
            for one in of_settings:
                self._results(setting, evaluation, one, zero.rows, examples[evaluation.key][1])
                setting += 1
        self.notes += [readable(remark) for times in self.times.values() for remark in times.remarks()]

    def _ids(self, evaluation: Evaluation) -> list[int]:
        """The evaluation's queries: those of its first setting whose predictions can be read."""
        for result in evaluation.results:
            try:
                return [int(row["query_id"]) for row in read_predictions(evaluation.predictions(result))]
            except (StoreError, *_BROKEN):  # remarked where its rows are wanted
                continue
        return []

    def _answers(self, evaluation: Evaluation, result: SettingResult) -> _Answers:
        """The shown rows of a setting. What cannot be read is remarked."""
        ids = set(self.chosen[evaluation.key])
        try:
            path = evaluation.predictions(result)
            rows = [_checked(row) for row in read_predictions(path) if int(row["query_id"]) in ids]
        except StoreError as error:
            missing = error.message
        except _BROKEN as error:
            missing = f"the predictions of {result.method}, {result.shots} shots, are malformed: {error}"
        else:
            return _Answers({int(row["query_id"]): row for row in rows}, made=changed_at(path))
        self.remarks[evaluation.position].append(f"{missing}: its answers are not shown")
        return _Answers(missing=readable(missing))

    def _examples(
        self, key: DatasetKey, answers: Sequence[Sequence[_Answers]]
    ) -> tuple[dict[int, Example], dict[int, Example]]:
        """(queries, demonstrations) of a data set by id, as far as it is there."""
        mine = [e for e in self.evaluations if e.key == key]
        places = [place for e in mine for place in workspaces_of(e.folder, "evaluations", self.workspace)]
        splits = Examples(key, places)
        rows = [row for e in mine for one in answers[e.position] for row in one.rows.values()]
        queries = splits.load_queries(key.queries, (row["query_id"] for row in rows))
        demonstrations = splits.load(_INDEX, (icd for row in rows for icd in row["icd_ids"]))
        self.notes += [readable(remark) for remark in dict.fromkeys(splits.remarks)]
        written = [one.made for e in mine for one in answers[e.position] if one.made is not None]
        self.times[key] = ImageTimes(self.labels[key], min(written, default=None), splits.changed)
        return queries, demonstrations

    def _queries(self, key: DatasetKey, answers: Sequence[Sequence[_Answers]], examples: Mapping[int, Example]) -> None:
        """Puts the queries of a data set into the catalogue, by ascending id."""
        mine = [one for e in self.evaluations if e.key == key for one in answers[e.position]]
        for query_id in self.chosen[key]:
            row = next((one.rows[query_id] for one in mine if query_id in one.rows), None)
            if row is None:
                continue
            example = examples.get(query_id)
            images = _images(row)[-1:] if example is None else example.images
            usable = map(self.times[key].usable, images)
            self.catalogue.query(key, query_id, self.labels[key], example, row["references"], usable)
            if example is not None and example.rule:
                self.rules[key, query_id] = example.rule

    def _results(
        self,
        setting: int,
        evaluation: Evaluation,
        answers: _Answers,
        zero: Mapping[int, Row],
        examples: Mapping[int, Example],
    ) -> None:
        """Adds the setting's results; where its predictions are missing, ones that say so."""
        for query_id in self.chosen[evaluation.key]:
            query = self.catalogue.known_query(evaluation.key, query_id)
            row = answers.rows.get(query_id)
            if query is None or (row is None and not answers.missing):
                continue
            if row is None:
                self.results.append(Result(setting, query, (), missing=answers.missing))
                continue
            demonstrations = tuple(self._demonstrations(evaluation.key, row, examples))
            self.results.append(_result(setting, query, demonstrations, row, zero.get(query_id)))

    def _demonstrations(self, key: DatasetKey, row: Row, examples: Mapping[int, Example]) -> Iterator[int]:
        """Positions of the row's demonstrations, in prompt order."""
        rule = self.rules.get((key, row["query_id"]), "")
        for icd, image in zip(row["icd_ids"], _images(row), strict=False):
            example = examples.get(icd)
            usable = map(self.times[key].usable, (image,) if example is None else example.images)
            yield self.catalogue.demonstration(key, icd, example, usable, rule)


def _result(setting: int, query: int, demonstrations: tuple[int, ...], row: Row, zero: Row | None) -> Result:
    scores = {name: known(score) for name, score in row["scores"].items()}
    gains = {name: known(gain) for name, gain in mapping(row.get("gain")).items()}
    if not gains and zero is not None and zero is not row:
        before = {name: known(score) for name, score in zero["scores"].items()}
        gains = {name: score - before[name] for name, score in scores.items() if name in before}
    copied = set(row.get("copied") or ())
    return Result(
        setting=setting,
        query=query,
        demonstrations=demonstrations,
        prompt=readable(row["prompt"]),
        answer=readable(row["answer"]),
        raw=readable(row["raw"]),
        scores=scores,
        gains=gains,
        leaks={kind: int(count) for kind, count in mapping(row.get("shared")).items()},
        copied=tuple(place for place, icd in enumerate(row["icd_ids"]) if icd in copied),
    )


def _checked(row: Row) -> Row:
    """The row if its columns have the types that are read. ValueError for others."""
    lists = all(isinstance(row[name], list) for name in ("icd_ids", "images", "references"))
    if not lists or not isinstance(row["scores"], dict) or not all(type(icd) is int for icd in row["icd_ids"]):
        raise ValueError(f"query {row['query_id']} has a column of another type")
    return row


def _images(row: Row) -> list[str]:
    """The references of the demonstrations' images, then the query's, as the prompt had them; "" where there are none, or
    not one for each."""
    expected = len(row["icd_ids"]) + 1
    images = [str(image) for image in row["images"]]
    return images if len(images) == expected else [""] * expected


def _labels(keys: Iterable[DatasetKey]) -> dict[DatasetKey, str]:
    """What data sets are called; versions of one are told apart by their fingerprints."""
    times = Counter(key.label for key in keys)
    return {key: f"{key.label}, {key.fingerprint[:8]}" if times[key.label] > 1 else key.label for key in keys}


def _title(evaluations: Sequence[Evaluation]) -> str:
    names = list(dict.fromkeys(evaluation.key.label for evaluation in evaluations))
    return f"Evaluations of {', '.join(names) if len(names) <= _NAMED else f'{len(names)} data sets'}"


def _is_zero(result: SettingResult) -> bool:
    return (result.method, result.shots, result.seed) == ZERO
