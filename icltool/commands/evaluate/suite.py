"""Suites: several prepared data sets evaluated in one call, each as by itself, and one table of them all.

A suite is a TOML file: a line `summary`, a table `[evaluate]` with options for all data sets, and a table
`[datasets.NAME]` for each, with its own options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.report import EvaluationReport
from icltool.config.profiles import check_table, parse_toml
from icltool.contracts import Progress, StageReport
from icltool.errors import ConfigError, IclError, StoreError, suggestion
from icltool.results.grid import EMPTY
from icltool.results.published import PublishedFigure, figure_text
from icltool.results.sheet import Figure, Row, Sheet
from icltool.results.tables import result_sheets
from icltool.store.workspace import Workspace

_ALL, _DATASETS = "evaluate", "datasets"
#: Options of the call that a suite cannot set.
_OF_THE_CALL = ("suite", "dataset", "workspace")


@dataclass(frozen=True)
class Suite:
    """The options for each data set, by its name: those of `[evaluate]`, then its own."""

    name: str
    summary: str
    datasets: Mapping[str, Mapping[str, object]]


@cache
def shipped_suites() -> dict[str, Path]:
    """The files of the suites that come with icltool, by name."""
    folder = files("icltool.commands.evaluate") / "suites"
    return {Path(item.name).stem: Path(str(item)) for item in folder.iterdir() if item.name.endswith(".toml")}


def read_suite(name_or_path: str) -> Suite:
    """A suite by its name, or in a file of the user's. Raises ConfigError, with the file and the key, if it is malformed."""
    path = shipped_suites().get(name_or_path, Path(name_or_path).expanduser())
    if not path.is_file():
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise ConfigError(f"suite {path} does not exist", f"suites: {', '.join(sorted(shipped_suites()))}")
        raise ConfigError(f"unknown suite {name_or_path!r}", suggestion(name_or_path, sorted(shipped_suites())))
    content = parse_toml(path, "a suite is a TOML file in UTF-8")
    summary, common, own = content.pop("summary", ""), content.pop(_ALL, {}), content.pop(_DATASETS, {})
    if content:
        raise ConfigError(
            f"{path}: unknown key {next(iter(content))!r}", f"known: summary, [{_ALL}], [{_DATASETS}.NAME]"
        )
    if not isinstance(own, dict) or not own or not all(isinstance(table, dict) for table in own.values()):
        raise ConfigError(f"{path} names no data sets", f"a data set is a table [{_DATASETS}.NAME], which may be empty")
    for table, entries in {_ALL: common, **{f"{_DATASETS}.{name}": table for name, table in own.items()}}.items():
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: {table!r} must be a table", f"write it as [{table}]")
        if forbidden := [key for key in _OF_THE_CALL if key in entries]:
            raise ConfigError(f"{path}: {forbidden[0]} cannot be set in a suite", "leave it out")
        check_table(path, table, entries, {table: EvaluateConfig})
    shared = common if isinstance(common, dict) else {}
    return Suite(path.stem, str(summary), {name: {**shared, **table} for name, table in own.items()})


@dataclass(frozen=True)
class SuiteReport(StageReport):
    """A StageReport whose table has the methods of each data set by shots, by its main metric, with what others reported."""

    reports: tuple[tuple[str, EvaluationReport], ...] = field(default=())

    def table(self, verbose: bool = False) -> Any:
        from rich.console import Group
        from rich.text import Text

        if verbose:
            return Group(*(report.table(True) for _, report in self.reports))
        return Group(Text(f"{self.title}\n"), self._sheet())

    def _sheet(self) -> Sheet:
        shots = sorted({result.shots for _, report in self.reports for result in report.results})
        columns = [f"{k}-shot" for k in shots]
        sources: list[str] = []
        rows: list[Row] = []
        for name, report in self.reports:
            main = result_sheets(report.over_seeds())[0]
            rows.append(Row(f"{name}, {main.heading}", [Figure("")] * len(columns)))
            for row in main.rows:
                by_shots = dict(zip(main.columns, row.figures, strict=True))
                rows.append(Row(f"  {row.name}", [by_shots.get(column, Figure(EMPTY)) for column in columns]))
            rows += _reported(report.published, main.heading, shots, sources)
        bold = any(figure.bold for row in rows for figure in row.figures)
        caption = [f"mean ±half of the 95 % interval{'; bold: best of its data set and column' if bold else ''}"]
        caption += [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
        return Sheet("", columns, rows, caption="\n".join(caption))

    def rows(self) -> list[dict[str, Any]]:
        return [{"dataset": name, **row} for name, report in self.reports for row in report.rows()]


def run_suite(
    config: EvaluateConfig, progress: Progress, evaluate: Callable[[EvaluateConfig, Progress], EvaluationReport]
) -> SuiteReport:
    """Evaluates the suite's data sets that are prepared one after another; those that are not are named.

    Options of the call come before those of the suite. Raises ConfigError for a malformed suite, StoreError if none of its
    data sets is prepared, and what the evaluation of a data set raises; earlier ones are on disk then.
    """
    assert config.suite is not None
    suite = read_suite(config.suite)
    if config.dataset is not None:
        raise ConfigError("--suite names the data sets, so --dataset has no place", "leave one of them out")
    workspace = Workspace(config.workspace)
    prepared = {name for name, _ in workspace.prepared()}
    missing = [f"{name} is not prepared: {_prepare(name)}" for name in suite.datasets if name not in prepared]
    chosen = {name: options for name, options in suite.datasets.items() if name in prepared}
    if not chosen:
        raise StoreError(
            f"none of the data sets of suite {suite.name} is prepared in {workspace.root}: {', '.join(suite.datasets)}",
            f"{_prepare(next(iter(suite.datasets)))}, or name others in a suite of your own",
        )
    of_the_call = {name: getattr(config, name) for name in config.model_fields_set - {"suite"}}
    configs = {name: _merged(suite, name, options, of_the_call) for name, options in chosen.items()}
    reports = []
    for number, (name, own) in enumerate(configs.items(), 1):
        progress.say(f"{name}: data set {number} of {len(configs)}")
        try:
            reports.append((name, evaluate(own, progress)))
        except IclError as error:
            error.message = f"{name}: {error.message}"
            raise
    notes = [f"{name}: {note}" for name, report in reports for note in report.remarks]
    title = f"Suite {suite.name}: {suite.summary}" if suite.summary else f"Suite {suite.name}"
    return SuiteReport(title, (), workspace.evaluations, (*missing, *notes), reports=tuple(reports))


def _prepare(name: str) -> str:
    return f"run `icltool prepare {name} --root DIR`"


def _merged(
    suite: Suite, dataset: str, options: Mapping[str, object], of_the_call: Mapping[str, object]
) -> EvaluateConfig:
    from pydantic import ValidationError

    try:
        return EvaluateConfig(**{**options, **of_the_call, "dataset": dataset})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"suite {suite.name}, data set {dataset}: {reason}") from error


def _reported(figures: tuple[PublishedFigure, ...], metric: str, shots: list[int], sources: list[str]) -> list[Row]:
    """A row for each method that a source reports by this metric at one of these shots; adds the sources."""
    rows: dict[tuple[int, str], dict[int, Figure]] = {}
    for figure in figures:
        if figure.metric != metric or figure.shots not in shots:
            continue
        source = f"{figure.source}{f'; protocol differs: {figure.protocol}' if figure.protocol else ''}"
        if source not in sources:
            sources.append(source)
        rows.setdefault((sources.index(source) + 1, figure.method), {})[figure.shots] = Figure(figure_text(figure))
    return [
        Row(f"  reported: {method} [{number}]", [by_shots.get(k, Figure(EMPTY)) for k in shots])
        for (number, method), by_shots in rows.items()
    ]
