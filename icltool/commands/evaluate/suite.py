"""Suites: several prepared data sets evaluated in one call, each as by itself, and one table of them all.

A suite is a TOML file: a line `summary`, a table `[evaluate]` with options for all data sets, and a table
`[datasets.NAME]` for each, with its own options. There, `prepared_with` are options of `icltool prepare` that the protocol
has, such as { label = "first" }.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.report import EvaluationReport
from icltool.commands.evaluate.suite_data import check_names, differences, missing
from icltool.config.profiles import check_table, parse_toml
from icltool.contracts import Progress, StageReport
from icltool.errors import ConfigError, IclError, StoreError, suggestion
from icltool.results.grid import EMPTY
from icltool.results.published import PublishedFigure, figure_text
from icltool.results.sheet import Figure, Row, Sheet
from icltool.results.tables import result_sheets
from icltool.store.workspace import Workspace

_ALL, _DATASETS, _PREPARED = "evaluate", "datasets", "prepared_with"
#: Options of the call that a suite cannot set.
_OF_THE_CALL = ("suite", "dataset", "workspace")


@dataclass(frozen=True)
class Suite:
    """The options for each data set, by its name: those of `[evaluate]`, then its own. `prepared_with` are those of its reader
    that the protocol has."""

    name: str
    summary: str
    datasets: Mapping[str, Mapping[str, object]]
    prepared_with: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


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
    prepared_with = {name: table.pop(_PREPARED, {}) for name, table in own.items()}
    if wrong := [name for name, options in prepared_with.items() if not isinstance(options, dict)]:
        raise ConfigError(
            f"{path}, table [{_DATASETS}.{wrong[0]}]: {_PREPARED} must be a table of options of the reader",
            f'for example {_PREPARED} = {{ label = "first" }}',
        )
    for table, entries in {_ALL: common, **{f"{_DATASETS}.{name}": table for name, table in own.items()}}.items():
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: {table!r} must be a table", f"write it as [{table}]")
        if forbidden := [key for key in _OF_THE_CALL if key in entries]:
            raise ConfigError(f"{path}: {forbidden[0]} cannot be set in a suite", "leave it out")
        check_table(path, table, entries, {table: EvaluateConfig})
    shared = common if isinstance(common, dict) else {}
    return Suite(path.stem, str(summary), {name: {**shared, **table} for name, table in own.items()}, prepared_with)


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
    config: EvaluateConfig,
    progress: Progress,
    evaluate: Callable[[EvaluateConfig, Progress], EvaluationReport],
    check: Callable[[EvaluateConfig], object],
) -> SuiteReport:
    """Evaluates the suite's data sets that are prepared one after another; those that are not are named.

    Options of the call come before those of the suite. All data sets are checked before the first is evaluated. Raises
    ConfigError for a malformed suite, StoreError if none of its data sets is prepared, and what the check or the evaluation
    of a data set raises; earlier ones are on disk then.
    """
    assert config.suite is not None
    suite = read_suite(config.suite)
    if config.dataset is not None:
        raise ConfigError("--suite names the data sets, so --dataset has no place", "leave one of them out")
    workspace = Workspace(config.workspace)
    of_the_call = {name: getattr(config, name) for name in config.model_fields_set - {"suite"}}
    configs = {name: _merged(suite, name, options, of_the_call) for name, options in suite.datasets.items()}
    check_names(suite.name, list(configs.values()), {name for name, _ in workspace.prepared()})
    lacking = {name: missing(workspace, own, suite.prepared_with.get(name, {})) for name, own in configs.items()}
    chosen = {name: own for name, own in configs.items() if not lacking[name]}
    without = list(dict.fromkeys(line for lines in lacking.values() for line in lines))
    if not chosen:
        raise StoreError(
            f"none of the data sets of suite {suite.name} is prepared in {workspace.root}: {', '.join(configs)}",
            f"{without[0].rpartition(': ')[2]}, or name others in a suite of your own",
        )
    notes: list[str] = []
    for name, own in chosen.items():
        with _named(name):
            check(own)
            notes += [f"{name}: {line}" for line in differences(workspace, own, suite.prepared_with.get(name, {}))]
    reports = []
    for number, (name, own) in enumerate(chosen.items(), 1):
        progress.say(f"{name}: data set {number} of {len(chosen)}")
        with _named(name):
            reports.append((name, evaluate(own, progress)))
    notes += [f"{name}: {note}" for name, report in reports for note in report.remarks]
    title = f"Suite {suite.name}: {suite.summary}" if suite.summary else f"Suite {suite.name}"
    return SuiteReport(title, (), workspace.evaluations, (*without, *notes), reports=tuple(reports))


@contextmanager
def _named(dataset: str) -> Iterator[None]:
    """Errors begin with the name of the data set."""
    try:
        yield
    except IclError as error:
        error.message = f"{dataset}: {error.message}"
        raise


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
    """A row for each method that a source reports at one of these shots, by this metric or another; adds the sources."""
    rows: dict[tuple[int, str, str], dict[int, Figure]] = {}
    for figure in sorted(figures, key=lambda figure: figure.metric != metric):
        if figure.shots not in shots:
            continue
        source = f"{figure.source}{f'; protocol differs: {figure.protocol}' if figure.protocol else ''}"
        if source not in sources:
            sources.append(source)
        rows.setdefault((sources.index(source) + 1, figure.metric, figure.method), {})[figure.shots] = Figure(
            figure_text(figure)
        )
    return [
        Row(
            f"  reported{'' if by == metric else f', {by}'}: {method} [{number}]",
            [by_shots.get(k, Figure(EMPTY)) for k in shots],
        )
        for (number, by, method), by_shots in rows.items()
    ]
