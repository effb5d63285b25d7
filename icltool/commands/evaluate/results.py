"""The evaluation folder: settings that are there are kept, the others are answered, judged and written one by one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from icltool.commands.evaluate import comparing, costs, fine_tuned
from icltool.commands.evaluate.answering import AnswerJob, Answers
from icltool.commands.evaluate.judging import Judge, Judged
from icltool.commands.evaluate.methods import ZERO_SHOT
from icltool.commands.evaluate.reuse import Earlier, same_setting
from icltool.commands.evaluate.settings import Setting, Settings, further_orders
from icltool.contracts import IntArray
from icltool.contracts.evaluation import (
    Analysis,
    EvaluationProvenance,
    Order,
    Prediction,
    RunFacts,
    SeedMean,
    SettingFacts,
    SettingKey,
    facts_without,
)
from icltool.contracts.json import Json
from icltool.results.baseline import RANDOM
from icltool.store.artefact import digest
from icltool.store.atomic import replace_file, writing
from icltool.store.evaluations import (
    RESULTS,
    PartialAnswers,
    SettingResult,
    predictions_file,
    read_evaluation,
    read_predictions,
    write_predictions,
    write_results,
)
from icltool.store.makers import Makers
from icltool.store.provenance import moment, releases

_TYPES = ("answer_type", "question_type")
_ZERO = SettingKey(ZERO_SHOT, 0, 0)


class Results:
    """The results in one folder. The caller holds the lock of its results.json.

    `skipped` counts the settings that were evaluated before, `reused` those whose answers were there already. Every
    setting is on disk before the next begins.
    """

    def __init__(
        self, settings: Settings, judge: Judge, answers: Answers, folder: Path, provenance: EvaluationProvenance
    ) -> None:
        self.settings, self.judge, self.answers = settings, judge, answers
        self.folder, self.provenance = folder, provenance
        self.config = settings.inputs.config
        self.results: dict[SettingKey, SettingResult] = {}
        self.analysis = Analysis()
        self.skipped = self.reused = 0
        #: Earlier settings whose name is now taken: their new names.
        self.renamed: dict[SettingKey, SettingResult] = {}
        self.earlier = Earlier(folder, provenance)
        self._fresh: set[SettingKey] = set()
        self._parts: dict[Path, PartialAnswers] = {}
        self._judged: dict[SettingKey, dict[str, Judged]] = {}
        self._dropped: list[SettingKey] = []
        if (folder / RESULTS).is_file():
            stored = read_evaluation(folder)
            provenance_before, self.analysis = stored.provenance, stored.analysis
            self.results = {result.key: result for result in stored.results}
            if not self.config.overwrite:
                Makers.of(provenance_before).check(folder / RESULTS, Makers.of(provenance))
            elif Makers.of(provenance_before).difference(Makers.of(provenance)):
                self._dropped, self.results, self.analysis = list(self.results), {}, Analysis()

    def pending(self) -> list[Setting]:
        """The settings that have to be answered."""
        return [
            setting
            for group in self.settings.groups
            for setting in group
            if self._current(setting) is None and setting.seed not in self._seeds_alike(group[0])
        ]

    def unanswered(self) -> list[Setting]:
        """Those of them that the model has to answer: no evaluation by other metrics left their answers."""
        known = self.earlier if not self.config.overwrite else None
        return [setting for setting in self.pending() if known is None or known.result(setting) is None]

    def to_answer(self) -> list[AnswerJob]:
        """Everything that the model has to answer in this call, further orders of demonstrations among it."""
        units = []
        unanswered = {setting.key for setting in self.unanswered()}
        for group in self.settings.groups:
            first = group[0]
            others = [s for s in group[1:] if s.seed not in self._seeds_alike(first) and not self._alike(first, s)]
            for setting in [first, *others]:
                if setting.key in unanswered:
                    units.append(self._job(setting))
            if self.config.permutations > 1 and first.count > 1:
                units += [one for setting in [first, *others] for one in self._orders_to_answer(setting)]
        return units

    def _job(self, setting: Setting) -> AnswerJob:
        part = self._part(self._file(setting.key), setting.digest)
        if not setting.asks:
            return AnswerJob(setting, 0, self.settings.demonstrations(setting), part)
        unknown = np.empty((len(self.settings.inputs.query_rows), 0), dtype=np.int64)
        return AnswerJob(setting, 0, unknown, part, among=self.settings.among(setting))

    def _orders_to_answer(self, setting: Setting) -> list[AnswerJob]:
        current = self._current(setting)
        known = [] if current is None else current.extra.get("orders", {}).get("each", ())
        return [
            AnswerJob(setting, number + 1, chosen, self._order_part(setting, number))
            for number, chosen in enumerate(self._reordered_rows(setting))
            if number >= len(known)
        ]

    def _seeds_alike(self, first: Setting) -> Sequence[int]:
        result = self._current(first)
        return () if result is None else result.extra.get("seeds_alike", ())

    def evaluate(self, group: Sequence[Setting]) -> list[Setting]:
        """Evaluates the seeds of one method and number of shots; the settings that are there afterwards. A seed that gives
        the demonstrations of the first one is not answered again."""
        first = group[0]
        self._ensure(first)
        evaluated = [first]
        for setting in group[1:]:
            if setting.seed in self.results[first.key].extra.get("seeds_alike", ()):
                continue
            if self._current(setting) is None and self._alike(first, setting):
                seeds = sorted({*self.results[first.key].extra.get("seeds_alike", ()), setting.seed})
                self._store(first.key, {"seeds_alike": seeds})
                continue
            self._ensure(setting)
            evaluated.append(setting)
        if self.config.permutations > 1 and first.count > 1:
            for setting in evaluated:
                self._reorder(setting)
        return evaluated

    def uncosted(self) -> list[Setting]:
        """The settings whose cost is to be measured; of several seeds the first."""
        if not costs.should_measure(self.settings):
            return []
        return [
            s for s in costs.firsts(self.settings) if (result := self._current(s)) is None or "cost" not in result.extra
        ]

    def measure(self) -> list[str]:
        """Takes in the costs that are missing; a line for each that cannot be measured."""
        lines = []
        if uncosted := [s for s in self.uncosted() if self._current(s) is not None]:  # those whose answers could be had
            costs, faults = self.answers.costs()
            for setting in uncosted:
                if setting.key in faults:  # a prompt that does not fit by itself: the answers are there
                    lines.append(f"the cost of {setting.title} cannot be measured: {faults[setting.key]}")
                else:
                    self._store(setting.key, {"cost": costs[setting.key]})
        return lines

    def compare(self, groups: Sequence[Sequence[Setting]]) -> None:
        """Sets the settings of a call against each other and against zero-shot, and writes what is found."""
        if _ZERO in self.results:
            for group in groups:
                for setting in group:
                    if setting.key != _ZERO:
                        self._gain(setting)
        if self.analysis.get("key") == self._analysis_key(groups):
            return
        seeds, methods = self._over_seeds(groups)
        inputs = self.settings.inputs
        self.analysis = {
            "key": self._analysis_key(groups),  # once more: a metric may have turned out not to run
            "guard": {"kinds": sorted(inputs.guard), "index": len(inputs.index_rows), "kept_away": inputs.kept_away()},
            "seeds": seeds,
            "differences": [
                entry
                for shots, by_method in sorted(methods.items())
                if shots and len(by_method) > 1
                for entry in comparing.differences(by_method, shots, (RANDOM,))
            ]
            + comparing.across_shots(methods, [m.label for m in self.settings.methods if m.own_model]),
        }
        self._write()

    def _analysis_key(self, groups: Sequence[Sequence[Setting]]) -> str:
        """Stands for what an analysis is made of."""
        results = [self.results[setting.key] for group in groups for setting in group]
        made_of = [[r.method, r.shots, r.seed, r.extra["digest"], sorted(r.metrics)] for r in results]
        return digest({"settings": made_of, "faults": sorted(self.judge.faults)})

    def _over_seeds(
        self, groups: Sequence[Sequence[Setting]]
    ) -> tuple[list[SeedMean], dict[int, dict[str, dict[str, Judged]]]]:
        """(an entry for each group of several seeds, figures over seeds by shots and method)."""
        entries: list[SeedMean] = []
        methods: dict[int, dict[str, dict[str, Judged]]] = {}
        for group in groups:
            each = [self._figures(setting) for setting in group]
            mean = comparing.over_seeds(each)
            methods.setdefault(group[0].shots, {})[group[0].method.label] = mean
            if len(group) > 1:
                metrics = {
                    name: {
                        "mean": one.result.mean,
                        "low": one.result.low,
                        "high": one.result.high,
                        **comparing.spread(each, name),
                    }
                    for name, one in mean.items()
                }
                seeds = [setting.seed for setting in group]
                entries.append(
                    {"method": group[0].method.label, "shots": group[0].shots, "seeds": seeds, "metrics": metrics}
                )
        return entries, methods

    def _figures(self, setting: Setting) -> dict[str, Judged]:
        if setting.key not in self._judged:
            self._judged[setting.key] = self.judge.stored(read_predictions(self._file(setting.key)))
        return self._judged[setting.key]

    def _current(self, setting: Setting) -> SettingResult | None:
        """The result that is there, if it is this setting's."""
        result = same_setting(self.results, setting)
        return result if result is not None and (setting.key in self._fresh or not self.config.overwrite) else None

    def _alike(self, first: Setting, other: Setting) -> bool:
        return not first.asks and np.array_equal(
            self.settings.demonstrations(first), self.settings.demonstrations(other)
        )

    def _ensure(self, setting: Setting) -> None:
        """Has the setting answered by all metrics that can run; only what is missing is done."""
        self._take_name(setting)
        result, path = self._current(setting), self._file(setting.key)
        missing = set(self.judge.metrics) - set(self.judge.faults) - set(result.metrics if result else ())
        if result is not None and not missing:
            self.skipped += 1
            PartialAnswers(path, setting.digest).remove_own()
            return
        if result is not None:  # a metric could not run before
            rows = read_predictions(path)
            judged = self.judge.judge(rows, without=result.metrics)
            if not judged:
                self.skipped += 1
                return
            seconds, extra = result.seconds, facts_without(result.extra, ("gains",))
            judged = {**self.judge.stored(rows), **judged}
        else:
            rows, seconds, extra = self._answers(setting)
            judged = self.judge.judge(rows)
            if not judged:
                raise next(iter(self.judge.faults.values()))
        judged = {name: judged[name] for name in self.judge.metrics if name in judged}
        _set_scores(rows, judged)
        write_predictions(path, rows)
        named: SettingFacts = {
            "digest": setting.digest,
            "options": setting.method.options,
            "plugin": setting.method.plugin,
        }
        extra = {**extra, **named, **self._setting_facts(rows, judged)}
        self._fresh.add(setting.key)
        self.analysis = Analysis()
        self._judged[setting.key] = judged
        metrics = {name: one.result for name, one in judged.items()}
        self.results[setting.key] = SettingResult(*setting.key, len(rows), metrics, seconds, extra)
        self._write()
        PartialAnswers(path, setting.digest).remove()

    def _take_name(self, setting: Setting) -> None:
        """Gives the setting its name where another one of other options or inputs has it, which is called after its digest from
        then on; and where the setting itself was called so, its own name back."""
        named, own = self.results.get(setting.key), same_setting(self.results, setting)
        if named is not None and named.extra.get("digest") != setting.digest:
            method, shots, seed = setting.key
            self._rename(named, SettingKey(f"{method}@{str(named.extra.get('digest'))[:6]}", shots, seed))
            self.renamed[setting.key] = named
        if own is not None and own.key != setting.key:
            self._rename(own, setting.key)

    def _rename(self, result: SettingResult, key: SettingKey) -> None:
        """A kill at any moment leaves predictions under the name that results.json has."""
        before = result.key
        del self.results[before]
        self.results[key] = replace(result, method=key[0])
        self._judged.pop(before, None)
        self.analysis = Analysis()
        orders = range(1 + len(result.extra.get("orders", {}).get("each", ())))
        files = [(file, self._file(key, order)) for order in orders if (file := self._file(before, order)).is_file()]
        for file, new in files:
            with replace_file(new) as temporary:
                shutil.copyfile(file, temporary)
        self._write()
        for file, _ in files:
            with writing(file):
                file.unlink()

    def _answers(self, setting: Setting) -> tuple[list[Prediction], float, SettingFacts]:
        """(rows, seconds, what made them): those of an evaluation by other metrics, or new ones."""
        known = None if self.config.overwrite else self.earlier.rows(setting)
        if known is not None:
            self.reused += 1
            return known
        answered = self.answers.of(setting.key)
        facts = _made_by(setting, answered.remark)
        if setting.asks:
            facts["choosing"] = {"prompts": answered.choosing_prompts}
        facts["run"] = cast(RunFacts, {"date": moment(), **releases("torch", "transformers"), **answered.run})
        return answered.rows, answered.seconds, facts

    def _setting_facts(self, rows: list[Prediction], judged: dict[str, Judged]) -> SettingFacts:
        """What the answers of one setting tell by themselves."""
        columns = dict.fromkeys((*_TYPES, *(name for row in rows for name in row.get("aspects", {}))))
        by = {column: self.judge.breakdown(rows, column, judged) for column in columns}
        facts: SettingFacts = {"by": {column: table for column, table in by.items() if table}}
        if self.settings.inputs.task.extract is not None and (unreadable := sum(not row["answer"] for row in rows)):
            facts["unreadable"] = unreadable
        if rows[0]["icd_ids"]:
            facts["leaks"], facts["copies"] = comparing.leaks(rows), comparing.copies(rows)
        return facts

    def _gain(self, setting: Setting) -> None:
        """Gains over zero-shot, in the result and query by query in the predictions."""
        zero = self.results[_ZERO]
        means = {name: figure.mean for name, figure in zero.metrics.items()}
        against: dict[str, Json] = {"digest": zero.extra.get("digest"), **means}
        if self.results[setting.key].extra.get("gains", {}).get("against") == against:
            return
        if _ZERO not in self._judged:
            self._judged[_ZERO] = self.judge.stored(read_predictions(self._file(_ZERO)))
        without, path = self._judged[_ZERO], self._file(setting.key)
        rows, judged = read_predictions(path), self._figures(setting)
        for name, one in judged.items():
            if name in without:
                for row, gain in zip(rows, (one.scores - without[name].scores).tolist(), strict=True):
                    row.setdefault("gain", {})[name] = gain
        write_predictions(path, rows)
        self._store(setting.key, {"gains": {"against": against, "metrics": comparing.gains(judged, without)}})

    def _reorder(self, setting: Setting) -> None:
        """Answers with the same demonstrations in further orders."""
        reordered = self._reordered_rows(setting)
        known = list(self.results[setting.key].extra.get("orders", {}).get("each", ()))
        if len(known) >= len(reordered):
            return
        for number in range(len(known), len(reordered)):
            known.append(self._reordered(setting, number + 1))
            self._store(setting.key, {"orders": {"each": known}})
            self._order_part(setting, number).remove()
        own = {name: one.mean for name, one in self.results[setting.key].metrics.items()}
        files = [self._file(setting.key, order) for order in range(len(known) + 1)]
        answers = [[row["answer"] for row in read_predictions(file)] for file in files]
        figures = [own, *(entry["figures"] for entry in known)]
        self._store(setting.key, {"orders": {"each": known, **comparing.order_summary(figures, answers)}})

    def _reordered_rows(self, setting: Setting) -> list[IntArray]:
        """The setting's demonstrations in each further order."""
        query_ids = self.settings.inputs.queries.ids[self.settings.inputs.query_rows]
        orders = further_orders(setting, query_ids, self.config.permutations - 1)
        chosen = self.settings.demonstrations(setting)
        return [np.take_along_axis(chosen, orders[:, number], axis=1) for number in range(orders.shape[1])]

    def _order_part(self, setting: Setting, number: int) -> PartialAnswers:
        own = digest({"setting": setting.digest, "order": number + 1})
        return self._part(self._file(setting.key, number + 1), own)

    def _reordered(self, setting: Setting, order: int) -> Order:
        """Judges the answers to one further order; its entry in the result."""
        answered = self.answers.of(setting.key, order)
        rows = answered.rows
        judged = self.judge.judge(rows, draws=False)
        _set_scores(rows, judged)
        write_predictions(self._file(setting.key, order), rows)
        return {
            "order": order,
            "seconds": answered.seconds,
            "figures": {name: one.figure for name, one in judged.items()},
        }

    def _part(self, path: Path, own: str) -> PartialAnswers:
        """The answers of a setting so far, looked at once; earlier ones do not count if all are to be answered again."""
        if path not in self._parts:
            self._parts[path] = PartialAnswers(path, own, Makers.of(self.provenance))
            if self.config.overwrite:
                self._parts[path].remove()
        return self._parts[path]

    def _file(self, key: SettingKey, order: int = 0) -> Path:
        return predictions_file(self.folder, *key, order)

    def _store(self, key: SettingKey, facts: SettingFacts) -> None:
        self.results[key] = replace(self.results[key], extra={**self.results[key].extra, **facts})
        self._write()

    def _write(self) -> None:
        write_results(self.folder, list(self.results.values()), self.provenance, self.analysis)
        for key in set(self._dropped) - set(
            self.results
        ):  # answers of other weights, or of another version of a plugin
            self._file(key).unlink(missing_ok=True)
        self._dropped = []


def _made_by(setting: Setting, remark: str) -> SettingFacts:
    """The intervention, as results record it, or the fine-tuned weights."""
    intervention, weights = setting.method.intervention, setting.method.weights
    if weights is not None:
        return {"finetuned": {"file": str(weights), "about": dict(fine_tuned.read(weights).about)}}
    if intervention is None:
        return {}
    parameters, about = intervention.parameters, dict(intervention.about)
    return {
        "intervention": {"file": str(intervention.file), "parameters": parameters, "about": about, "remark": remark}
    }


def _set_scores(rows: list[Prediction], judged: dict[str, Judged]) -> None:
    for name, one in judged.items():
        for row, score in zip(rows, one.scores.tolist(), strict=True):
            row["scores"][name] = score
