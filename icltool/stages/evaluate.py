"""Answers the validation queries with demonstrations of several methods, and judges the answers.

Reads: datasets/<name>/<task>/, embeddings/ and checkpoints/ where a method asks for them
Writes: evaluations/<name>-<task>-<model>-<digest>/{results.json, predictions/*.jsonl}
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.config.evaluate import EvaluateConfig
from icltool.contracts import (
    GenerationOptions,
    IndexSet,
    IntArray,
    Metric,
    Model,
    Progress,
    QuerySet,
    Retriever,
    ScoringRequest,
    StageReport,
    Task,
    keyed_generator,
    task_named,
)
from icltool.engine.demonstrations import checked_rows
from icltool.engine.session import Session, open_session
from icltool.errors import ConfigError, StoreError
from icltool.plugin.manager import component, load_registry
from icltool.report.intervals import bootstrap_interval

if TYPE_CHECKING:
    from icltool.store.evaluations import SettingResult
    from icltool.store.records import PreparedDataset, Records
    from icltool.store.workspace import Workspace


@dataclass(frozen=True)
class EvaluationReport(StageReport):
    """A StageReport whose table is method x shots."""

    results: tuple[SettingResult, ...] = field(default=())

    def table(self) -> Any:
        from icltool.report.tables import result_table

        return result_table(self.results)


@dataclass(frozen=True)
class _Setting:
    """One cell of the table."""

    method: str
    shots: int
    seed: int
    options: dict[str, Any]
    digest: str


class _Run:
    """One call of the stage: the data are opened once, the model when the first answer is needed."""

    def __init__(self, config: EvaluateConfig, progress: Progress) -> None:
        from icltool.store.records import open_dataset
        from icltool.store.workspace import Workspace

        self.config, self.progress = config, progress
        self.workspace: Workspace = Workspace(config.workspace)
        name, task = self.workspace.choose_dataset(config.dataset, config.task)
        self.dataset: PreparedDataset = open_dataset(self.workspace.dataset_folder(name, task))
        self.task: Task = task_named(task)
        self.index: Records = self.dataset.split("train")
        self.queries: Records = self.dataset.split("validation")
        self.index_rows = _subset("evaluate.index", len(self.index), config.index_size)
        self.query_rows = _subset("evaluate.queries", len(self.queries), config.test_size)
        self.metrics: dict[str, Metric] = {m: component("metrics", m) for m in config.metrics or (self.task.metric,)}
        load_registry().get("models", config.model)
        self.retrievers: dict[tuple[str, str], Retriever] = {}
        self.rows: dict[tuple[str, str, int], IntArray] = {}
        self._arrays: dict[frozenset[str], tuple[IndexSet, QuerySet]] = {}
        self._session: Session | None = None

    def settings(self) -> list[_Setting]:
        """All settings of the call; zero-shot, and methods at 0 shots, come once."""
        if min(self.config.shots, default=0) < 0 or not self.config.shots:
            raise ConfigError("--shots takes numbers from 0 up", "--shots 1,2,4")
        found: dict[tuple[str, int, int], _Setting] = {}
        for method in self.config.methods:
            options = self._options(method)
            for shots in sorted(set(self.config.shots)):
                for seed in self.config.seeds:
                    name, count = (method, shots) if method != "zero-shot" and shots else ("zero-shot", 0)
                    found.setdefault((name, count, seed if count else 0), self._setting(name, count, seed, options))
        return list(found.values())

    def _setting(self, method: str, shots: int, seed: int, options: dict[str, Any]) -> _Setting:
        from icltool.store.artefact import digest

        if shots == 0:
            options, seed = {}, 0
        identity: dict[str, Any] = {"method": method, "shots": shots, "seed": seed, "options": options}
        folder = options.get("folder")
        if folder is not None:  # a selector that was trained again is another setting
            identity["weights"] = (Path(folder) / f"{options['checkpoint']}.safetensors").stat().st_mtime_ns
        if shots:
            retriever = self.retriever(method, options)
            identity["reversed"] = retriever.ranked and self.config.reversed_order
            if retriever.needs & {"image", "text"}:
                identity["encoder"] = self._encoder()
        return _Setting(method, shots, seed, options, digest(identity))

    def _options(self, method: str) -> dict[str, Any]:
        """The method's own options, and its selector's folder where it has one."""
        given, start = self.config.method_options, f"{method}."
        options = {k[len(start) :]: v for k, v in given.items() if k.startswith(start)} | dict(given.get(method, {}))
        learner = getattr(load_registry().load("retrievers", method), "learner", None)
        if learner is not None:
            folder = self.config.checkpoint or self.workspace.newest_checkpoint(
                learner, self.dataset.name, self.dataset.task
            )
            options |= {"folder": str(folder), "checkpoint": self.config.checkpoint_choice}
            if not (Path(folder) / f"{self.config.checkpoint_choice}.safetensors").is_file():
                raise StoreError(
                    f"{folder} holds no {self.config.checkpoint_choice}.safetensors", f"run `icltool train {learner}`"
                )
        return options

    def retriever(self, method: str, options: dict[str, Any]) -> Retriever:
        key = (method, repr(sorted(options.items())))
        if key not in self.retrievers:
            self.retrievers[key] = component("retrievers", method, **options)
        return self.retrievers[key]

    def _encoder(self) -> str:
        from icltool.store.arrays import embedded_by

        return embedded_by(self.workspace, self.dataset, self.config.encoder)

    def arrays(self, needs: frozenset[str]) -> tuple[IndexSet, QuerySet]:
        """(index set, queries) with what a method needs; each combination is read once."""
        from icltool.store.arrays import index_set, open_embeddings, query_set

        if needs not in self._arrays:
            files: list[Any] = [None, None]
            if needs & {"image", "text"}:
                files = [
                    open_embeddings(self.workspace, self.dataset, s, self._encoder()) for s in ("train", "validation")
                ]
            self._arrays[needs] = (
                index_set(self.index, needs, files[0], self.index_rows),
                query_set(self.queries, needs, files[1], self.query_rows),
            )
        return self._arrays[needs]

    def demonstrations(self, setting: _Setting) -> IntArray:
        """int64 [Q, shots] rows of the index records, in prompt order."""
        retriever = self.retriever(setting.method, setting.options)
        index, queries = self.arrays(retriever.needs)
        if setting.shots > len(index):
            raise ConfigError(f"{setting.shots} shots from an index set of {len(index)}", "use fewer shots")
        most = (
            max(s for s in (*self.config.shots, setting.shots)) if retriever.nested and setting.shots else setting.shots
        )
        key = (setting.method, repr(sorted(setting.options.items())), setting.seed * 1000 + most)
        if key not in self.rows:
            answer = retriever.retrieve(index, queries, most, setting.seed)
            self.rows[key] = checked_rows(setting.method, answer, index, queries, most)
        rows = self.rows[key][:, : setting.shots]
        if retriever.ranked and self.config.reversed_order:
            rows = rows[:, ::-1]
        return self.index_rows[rows] if rows.size else rows

    def session(self) -> Session:
        """The session that answers, with the model loaded on first use."""
        if self._session is None:
            config = self.config
            self.progress.detail(f"loading {config.model}")
            model: Model = component("models", config.model, **config.model_options())
            tokens = config.max_new_tokens or self.task.max_new_tokens
            generation = GenerationOptions(tokens, config.num_beams, config.length_penalty)
            cache_bytes = config.image_cache_mb * 2**20
            self._session = open_session(self.task.name, model, generation, config.batch_size, cache_bytes)
        return self._session


def run(config: EvaluateConfig, progress: Progress) -> EvaluationReport:
    """Evaluates every setting that is not in the evaluation folder yet; each is on disk before the next begins.

    Raises StoreError where data, embeddings or a selector are missing, ConfigError and PluginError for wrong components.
    """
    from icltool.store.evaluations import read_results, write_results

    work = _Run(config, progress)
    folder, provenance = _artefact(work)
    kept: dict[tuple[str, int, int], SettingResult] = {}
    if (folder / "results.json").is_file():
        kept = {(r.method, r.shots, r.seed): r for r in read_results(folder)[0]}
    wanted, skipped = [], 0
    for setting in work.settings():
        key = (setting.method, setting.shots, setting.seed)
        wanted.append(key)
        if key in kept and kept[key].extra.get("digest") == setting.digest and not config.overwrite:
            skipped += 1
            continue
        kept[key] = _evaluate(work, setting, folder)
        write_results(folder, list(kept.values()), provenance)
    results = tuple(kept[key] for key in wanted)
    remarks = [*_remarks(work)]
    if skipped:
        remarks.append(f"up to date: {skipped} of {len(wanted)} settings were evaluated before")
    title = f"{work.dataset.name} ({work.task.name}), {config.model}, {len(work.query_rows)} queries"
    return EvaluationReport(title, tuple(_table_row(r) for r in results), folder, tuple(remarks), results)


def _artefact(work: _Run) -> tuple[Path, dict[str, Any]]:
    from icltool.store.artefact import digest

    config = work.config
    identity = {
        **config.identity(),
        "dataset": work.dataset.name,
        "task": work.task.name,
        "dataset_fingerprint": work.dataset.fingerprint,
        "metrics": sorted(work.metrics),
    }
    found = load_registry().get("models", config.model)
    provenance = {
        "configuration": identity,
        "plugins": {f"models/{config.model}": f"{found.distribution} {found.version}"},
    }
    folder = work.workspace.evaluation_folder(work.dataset.name, work.task.name, config.model, digest(identity))
    return folder, provenance


def _evaluate(work: _Run, setting: _Setting, folder: Path) -> SettingResult:
    """Answers and judges one setting, and writes its predictions."""
    from icltool.store.evaluations import MetricResult, SettingResult, predictions_file, write_predictions

    chosen = work.demonstrations(setting)
    session = work.session()
    rows: list[dict[str, Any]] = []
    started = time.perf_counter()
    label = f"{setting.method}, {setting.shots}-shot" if setting.shots else "zero-shot"
    chunk = max(work.config.batch_size, 64)
    with work.progress.task(label, len(chosen), "queries") as ticker:
        for low in range(0, len(chosen), chunk):
            part = slice(low, low + chunk)
            rows += _answer(work, session, work.query_rows[part], chosen[part])
            ticker.advance(len(chosen[part]))
    seconds = time.perf_counter() - started
    clusters = [row["group"] or str(row["query_id"]) for row in rows]
    summary = {}
    for name, metric in work.metrics.items():
        scores = metric.score([r["answer"] for r in rows], [r["references"] for r in rows])
        for row, score in zip(rows, scores, strict=True):
            row["scores"][name] = float(score) * metric.scale
        mean, low_end, high_end = bootstrap_interval(scores * metric.scale, clusters)
        summary[name] = MetricResult(mean, low_end, high_end)
    write_predictions(predictions_file(folder, setting.method, setting.shots, setting.seed), rows)
    extra = {"digest": setting.digest, "options": setting.options}
    return SettingResult(setting.method, setting.shots, setting.seed, len(rows), summary, seconds, extra)


def _answer(work: _Run, session: Session, query_rows: IntArray, chosen: IntArray) -> list[dict[str, Any]]:
    """Prediction records of some queries."""
    queries = work.queries.rows(query_rows)
    demonstrations = [tuple(work.index.rows(row)) for row in chosen]
    requests = [ScoringRequest(q, d) for q, d in zip(queries, demonstrations, strict=True)]
    return [
        {
            "query_id": query.id,
            "group": query.group,
            "icd_ids": [d.id for d in demos],
            "prompt": prompt.text,
            "images": list(prompt.images),
            "raw": raw,
            "answer": answer,
            "references": list(query.references),
            "scores": {},
        }
        for query, demos, (prompt, raw, answer) in zip(
            queries, demonstrations, session.generations(requests), strict=True
        )
    ]


def _subset(purpose: str, total: int, size: int) -> IntArray:
    """Rows of a subset of `size` (-1: all), ascending; the draw does not depend on the methods' seeds."""
    if size < 0 or size >= total:
        return np.arange(total, dtype=np.int64)
    if size == 0:
        raise ConfigError("a size of 0 leaves nothing to evaluate", "-1 takes all")
    return np.sort(keyed_generator(0, purpose).permutation(total)[:size]).astype(np.int64)


def _remarks(work: _Run) -> list[str]:
    by_label = [m for m in work.config.methods if m in {"t2t", "t2i"}] if work.task.name == "caption" else []
    if not by_label:
        return []
    return [f"{', '.join(by_label)}: a caption query's text is its own reference, so this is an upper bound, no method"]


def _table_row(result: SettingResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": result.method,
        "shots": result.shots,
        "seed": result.seed,
        "queries": result.queries,
    }
    for name, metric in result.metrics.items():
        row[name] = round(metric.mean, 2)
        row[f"{name} 95 % low"], row[f"{name} 95 % high"] = round(metric.low, 2), round(metric.high, 2)
    row["seconds"] = round(result.seconds, 1)
    return row
