"""Answers that an evaluation by other metrics left: another metric needs no other answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from icltool.commands.evaluate.settings import Setting
from icltool.contracts.evaluation import EvaluationProvenance, Prediction, SettingFacts, SettingKey, facts_without
from icltool.contracts.json import Json
from icltool.errors import StoreError
from icltool.store.evaluations import RESULTS, SettingResult, predictions_file, read_evaluation, read_predictions
from icltool.store.makers import Makers

#: What of a result says how its answers were made.
_MADE = {"intervention", "finetuned", "choosing", "run"}


class Earlier:
    """Evaluations beside `folder` whose provenance differs from its own in the metrics alone. They are looked at when they are
    first needed."""

    def __init__(self, folder: Path, provenance: EvaluationProvenance) -> None:
        self.folder, self._configuration = folder, _but_metrics(provenance)
        self._makers = _answering(provenance)
        self._evaluations: list[tuple[Path, dict[SettingKey, SettingResult]]] | None = None

    def result(self, setting: Setting) -> tuple[Path, SettingResult] | None:
        """(folder, result) of the same setting in one of them, if its predictions are there and whole."""
        if self._evaluations is None:
            self._evaluations = self._read()
        for folder, results in self._evaluations:
            result = same_setting(results, setting)
            if result is not None and _rows(folder, result) is not None:
                return folder, result
        return None

    def rows(self, setting: Setting) -> tuple[list[Prediction], float, SettingFacts] | None:
        """(prediction rows without scores, seconds that answering took, what the result tells of how they were made)."""
        stored = self.result(setting)
        if stored is None:
            return None
        folder, result = stored
        rows = _rows(folder, result)
        if rows is None:
            return None
        for row in rows:
            row["scores"] = {}
            row.pop("gain", None)
        facts = facts_without(result.extra, result.extra.keys() - _MADE)
        facts["answers_from"] = folder.name
        return rows, result.seconds, facts

    def _read(self) -> list[tuple[Path, dict[SettingKey, SettingResult]]]:
        start = self.folder.name.rpartition("-")[0]
        results = []
        for path in sorted(self.folder.parent.glob(f"{start}-*/{RESULTS}")):
            if path.parent == self.folder:
                continue
            try:
                other = read_evaluation(path)
            except StoreError:
                continue
            of_it = other.provenance
            if _but_metrics(of_it) == self._configuration and not _answering(of_it).difference(self._makers):
                results.append((path.parent, {result.key: result for result in other.results}))
        return results


def _rows(folder: Path, result: SettingResult) -> list[Prediction] | None:
    """The setting's prediction rows; None where the file is gone or damaged: it is answered again."""
    try:
        return read_predictions(predictions_file(folder, *result.key))
    except StoreError:
        return None


def same_setting(results: Mapping[SettingKey, SettingResult], setting: Setting) -> SettingResult | None:
    """The result of this very setting, whatever it is called there; None where there is none."""
    named = results.get(setting.key)
    for result in [*([named] if named else []), *results.values()]:
        same = (result.shots, result.seed) == (setting.shots, setting.seed)
        if same and result.extra.get("digest") == setting.digest:
            return result
    return None


def _but_metrics(provenance: EvaluationProvenance) -> tuple[Json, Json]:
    """What decides answers beside weights and versions: the options, all but the metrics, and those of the data set."""
    configuration = {k: v for k, v in dict(provenance.get("configuration", {})).items() if k != "metrics"}
    return configuration, provenance.get("dataset_options", {})


def _answering(provenance: EvaluationProvenance) -> Makers:
    """What made the answers, without what judged them."""
    makers = Makers.of(provenance)
    return Makers({k: v for k, v in makers.plugins.items() if not k.startswith("metrics/")}, makers.weights)
