"""Answers the validation queries with demonstrations of several methods, and judges the answers.

Reads: datasets/<name>/<task>/; embeddings/, checkpoints/, sequences/ and plan files where a method asks for them
Writes: evaluations/<name>-<task>-<model>-<digest>/{results.json, predictions/*.jsonl, cost.png}; the table of --csv
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from icltool.commands.evaluate import costs
from icltool.commands.evaluate.answering import Answers
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.judging import Judge
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.report import EvaluationReport, details, notes, of_the_call, table_row
from icltool.commands.evaluate.results import Results
from icltool.commands.evaluate.settings import Setting, Settings
from icltool.commands.evaluate.suite import SuiteReport, run_suite
from icltool.commands.evaluate.table import append_results
from icltool.config.identity import makers
from icltool.config.metrics import named_metric, registered_metric
from icltool.contracts import Metric, Progress
from icltool.contracts.abilities import MadeForTasks
from icltool.contracts.evaluation import Analysis, EvaluationProvenance, SubsetFacts
from icltool.contracts.json import Json
from icltool.contracts.metric import HasLimits
from icltool.execution.running import give_up
from icltool.plugin.manager import load_registry
from icltool.results.appended_csv import check_appendable
from icltool.results.cost_figure import cost_figure
from icltool.results.costs import cost_of
from icltool.results.grid import over_seeds
from icltool.results.published import published_for
from icltool.store.artefact import digest
from icltool.store.atomic import remove_temporary_files, writing
from icltool.store.evaluations import RESULTS
from icltool.store.failures import clear_failures
from icltool.store.locking import locked
from icltool.store.workspace import earlier_or

if TYPE_CHECKING:
    from icltool.store.evaluations import SettingResult
    from icltool.store.subsets import Subset

__all__ = ["EvaluationReport", "run"]

#: Below this number of independent queries a bootstrap interval is said to be rough.
FEW = 20
#: Metric against cost, where costs were measured.
COST_FIGURE = "cost.png"
#: Metrics whose weights come from the references of all queries.
_OF_THE_QUERIES = ("cider",)


def run(config: EvaluateConfig, progress: Progress) -> EvaluationReport | SuiteReport:
    """Evaluates one data set, or those of a suite. Raises as `evaluate` and `run_suite`."""
    return evaluate(config, progress) if config.suite is None else run_suite(config, progress, evaluate, check)


def check(config: EvaluateConfig) -> None:
    """Raises what `evaluate` raises before the model is loaded, but for what choosing the demonstrations shows."""
    inputs = Inputs(config)
    load_registry().get("models", config.model)
    _metrics(inputs)
    Settings(inputs)


def evaluate(config: EvaluateConfig, progress: Progress) -> EvaluationReport:
    """Evaluates every setting that is not in the evaluation folder yet; each is on disk before the next begins, and an
    interrupted one goes on where it was.

    Raises StoreError where data, embeddings, a selector, sequences or a plan are missing, another process writes into the
    folder, or the table cannot be written; ConfigError and PluginError for wrong components; a metric's error when no
    metric can run.
    """
    if config.csv is not None:
        check_appendable(config.csv)
    inputs = Inputs(config)
    config.check_model(progress)
    judge = Judge(_metrics(inputs), default=not config.metrics)
    settings = Settings(inputs)
    chance = inputs.chance
    folder, provenance = _artefact(inputs, judge)
    judge.prepare(lambda: (inputs.queries[row] for row in inputs.query_rows))
    with Answers(settings, progress) as answers:
        before = Results(settings, judge, answers, folder, provenance)
        costs.set_apart(before.results, settings)
        if pending := [*before.unanswered(), *before.uncosted()]:
            for setting in pending:  # what cannot be chosen, or loaded, shows before hours of answering
                settings.choose(setting)
            answers.open(pending)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / RESULTS):
            with writing(folder):
                for place in (folder, folder / "predictions"):
                    remove_temporary_files(place)
            work = Results(settings, judge, answers, folder, provenance)
            costs.set_apart(work.results, settings)
            answers.ask(work.to_answer(), costs.cost_sample(settings) if work.uncosted() else None)
            groups = _evaluated(work, answers.complete(settings.groups))
            work.compare(groups)
            costs.set_apart(work.results, settings)
            faults = work.measure()
    if answers.failures:
        raise give_up(answers.failures, folder / RESULTS, answers.total, "answers", progress)
    clear_failures(folder / RESULTS)
    evaluated = [work.results[setting.key] for group in groups for setting in group]
    results = tuple(of_the_call(evaluated, costs.should_measure(settings), config.permutations > 1, config.seeds))
    title = _title(inputs)
    lines = [
        *notes(results, work.analysis),
        *(
            []
            if chance is None or "accuracy" not in judge.metrics
            else [f"chance level of accuracy: {100 * chance:.1f}"]
        ),
        *_notes(inputs, settings, judge),
        *settings.remarks,
        *answers.notes,
        *faults,
        *_about_the_call(work, judge, results),
    ]
    reported = published_for(
        {**config.identity(), "model": config.model, "dataset": inputs.dataset.name}, judge.metrics
    )
    part = len(inputs.query_rows) if len(inputs.query_rows) < len(inputs.queries) else 0
    if any(cost_of(result) for result in results):
        lines.append(f"accuracy against cost: {_drawn(results, work.analysis, folder, title)}")
    if config.csv is not None:
        lines.append(append_results(config.csv, inputs, folder, results))
    more = (*details(results, work.analysis), *_prepared_with(inputs), *answers.work)
    rows = tuple(table_row(r) for r in results)
    return EvaluationReport(title, rows, folder, tuple(lines), more, results, work.analysis, tuple(reported), part)


def _title(inputs: Inputs) -> str:
    """Data set, model and queries."""
    split = "train " if inputs.same_split else ""
    return f"{inputs.dataset.name} ({inputs.task.name}), {inputs.config.model_name}, {len(inputs.query_rows):,} {split}queries"


def _about_the_call(work: Results, judge: Judge, results: Sequence[SettingResult]) -> list[str]:
    """Which metrics are missing, which answers and settings were there before, and which of those have another name now."""
    lines = [f"{name} is missing: {error}" for name, error in judge.faults.items()]
    if work.reused:
        lines.append(
            f"answers of {work.reused} setting{'s' * (work.reused != 1)} are those of an earlier evaluation by other metrics"
        )
    if work.skipped:
        lines.append(f"up to date: {work.skipped} of {len(results)} settings were evaluated before")
    for (method, shots, _), before in {key[:2]: (key, before) for key, before in work.renamed.items()}.values():
        options = ", ".join(f"{name}={value}" for name, value in before.extra.get("options", {}).items()) or "none"
        lines.append(
            f"{method}, {shots}-shot: the earlier results with other options or inputs (options then: {options}) are now "
            f"called {method}@{str(before.extra.get('digest'))[:6]}; --method LABEL={method} gives a setting a name of its own"
        )
    return lines


def _evaluated(work: Results, groups: Sequence[Sequence[Setting]]) -> list[list[Setting]]:
    """The settings of each group, evaluated; those of other weights come last, so that no model is loaded twice."""
    order = sorted(range(len(groups)), key=lambda i: str(groups[i][0].method.weights or ""))
    evaluated = {position: work.evaluate(groups[position]) for position in order}
    return [evaluated[position] for position in range(len(groups))]


def _drawn(results: Sequence[SettingResult], analysis: Analysis, folder: Path, title: str) -> Path:
    return cost_figure(over_seeds(results, analysis), folder / COST_FIGURE, title)


def _metrics(inputs: Inputs) -> dict[str, Metric]:
    """The metrics by name: those asked for, else the data set's, else the task's own."""
    named = inputs.dataset.metrics or inputs.task.metrics
    usual = [name for name in named if name != "auc" or len(inputs.queries[0].choices) == 2]
    return {name: named_metric(name) for name in inputs.config.metrics or usual}


def _artefact(inputs: Inputs, judge: Judge) -> tuple[Path, EvaluationProvenance]:
    """(folder, provenance); the folder's name stands for all that decides results beside method, shots and seed."""
    config, dataset = inputs.config, inputs.dataset
    identity = {
        **inputs.identity(),
        "dataset": dataset.name,
        "task": dataset.task,
        "dataset_fingerprint": dataset.fingerprint,
        "leak_guard": sorted(inputs.guard),
        "metrics": sorted(judge.metrics),
    }
    chosen = [("models", config.model), *(("metrics", registered_metric(name)) for name in judge.metrics)]
    made_by = makers(chosen, {"models": config.model_path})
    folder, earlier = (
        inputs.workspace.evaluation_folder(dataset.name, dataset.task, name, digest(identity))
        for name in (config.model_name, config.model)
    )
    folder = earlier_or(folder, earlier)
    provenance = {"configuration": identity, **made_by.record(), "dataset_options": _dataset_options(inputs)}
    if inputs.subset is not None:
        queries, provenance_of_subset = inputs.subset.queries, inputs.subset.made
        facts: SubsetFacts = {
            "file": str(config.index_subset),
            "examples": len(inputs.index_rows),
            "queries": queries,
            "made": provenance_of_subset,
        }
        provenance["index_subset"] = facts
    return folder, cast(EvaluationProvenance, provenance)


def _notes(inputs: Inputs, settings: Settings, judge: Judge) -> list[str]:
    """What makes figures incomparable, and which part of the data set they are of."""
    lines = []
    if inputs.same_split:
        lines.append(
            f"train queries: {len(inputs.query_rows):,} examples of the index set are queries and never demonstrations. Use "
            "the figures to learn from: a selector or an intervention may have been trained on these examples"
        )
    lines += _about_demonstrations(inputs)
    if inputs.subset is not None:
        lines.append(_about_subset(inputs, inputs.subset))
    reads = [m.label for m in settings.methods if m.reads_query_text]
    if reads and inputs.task.own_text:
        lines.append(f"{', '.join(reads)}: a caption query's text is its own reference, so this is an upper bound")
    for name, (other, error) in judge.replaced.items():
        reason = error.message if error.hint and other in error.hint else error  # the hint is followed already
        lines.append(f"{name} cannot be computed here, so {other} is reported instead: {reason}")
    for name, metric in judge.metrics.items():
        made_for = metric.tasks if isinstance(metric, MadeForTasks) else ()
        if made_for and inputs.task.name not in made_for and name not in inputs.task.metrics:
            *first, last = made_for
            tasks = f"{', '.join(first)} and {last}" if first else last
            lines.append(f"{name} is made for {tasks}: it is not meaningful for {inputs.task.name}")
    references = [query.references for query in inputs.queries.rows(inputs.query_rows)] if _limited(judge) else []
    lines += [f"{name}: {line}" for name, metric in _limited(judge).items() if (line := metric.limits(references))]
    if len(inputs.query_rows) < FEW and (weighted := [n for n in judge.metrics if n in _OF_THE_QUERIES]):
        lines.append(
            f"{' and '.join(weighted)} weighs words by how rare they are in the queries' own references: it is unreliable for "
            "few queries (with a single one it is 0), and figures of different --test-size are not comparable"
        )
    groups = inputs.queries.groups[inputs.query_rows]
    independent = len(set(groups[groups >= 0].tolist())) + int((groups < 0).sum())
    if independent < FEW:
        lines.append(
            f"only {independent} independent queries (near-duplicates count once): intervals and p-values are rough"
        )
    return lines


def _prepared_with(inputs: Inputs) -> list[str]:
    """The options of the data set's reader that have a value."""
    options = {name: value for name, value in _dataset_options(inputs).items() if value not in ("", None)}
    if not options or options == {"seed": 0}:
        return []
    return ["the data set was prepared with " + ", ".join(f"{key}={value}" for key, value in options.items())]


def _limited(judge: Judge) -> dict[str, HasLimits]:
    """The metrics by which some answers can never be right."""
    return {name: metric for name, metric in judge.metrics.items() if isinstance(metric, HasLimits)}


def _about_demonstrations(inputs: Inputs) -> list[str]:
    """Where they come from, and whether they come in sets."""
    lines = []
    if (index := inputs.dataset.part("train")) is not inputs.dataset:
        queries = inputs.dataset.part("validation")
        lines.append(
            f"demonstrations are examples of {index.name}, queries of {queries.name}: ids of the two may be equal, and mean "
            "different examples"
        )
    if followers := inputs.index.followers:
        each = "another" if followers == 1 else f"{followers} others"
        images = f", together with {most} images" if (most := inputs.index.most_images) > 1 else ""
        lines.append(
            f"each demonstration is followed by {each}: a shot is {1 + followers} examples{images}, and they all count as one"
        )
    return lines


def _about_subset(inputs: Inputs, subset: Subset) -> str:
    by, queries = subset.made.get("learner"), subset.queries
    origin = (
        f"learned {f'by {by} ' if by else ''}from {queries} queries"
        if queries
        else "which does not say how it was made"
    )
    number = f"{len(inputs.index_rows):,} of {len(inputs.index):,} examples"
    overlap = int(np.isin(subset.ids, inputs.queries.ids[inputs.query_rows]).sum()) if inputs.same_split else 0
    left = f"; {overlap} of its ids are queries" if overlap else ""
    return f"the index set is restricted to {number} by {inputs.config.index_subset}, {origin}{left}"


def _dataset_options(inputs: Inputs) -> dict[str, Json]:
    """The reader's options that the data set was prepared with, such as `restval` of coco-karpathy."""
    options = inputs.dataset.manifest.get("provenance", {}).get("inputs", {}).get("options", {})
    return dict(options) if isinstance(options, dict) else {}
