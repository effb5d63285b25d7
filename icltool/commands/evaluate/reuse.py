"""Answers that an evaluation by other metrics left: another metric needs no other answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icltool.commands.evaluate.settings import Key, Setting
from icltool.errors import StoreError
from icltool.store.evaluations import RESULTS, SettingResult, predictions_file, read_predictions, read_results
from icltool.store.makers import Makers

#: What a metric adds to a prediction row.
_JUDGED = ("gain",)
#: What of a result says how its answers were made.
_MADE = ("intervention", "finetuned", "run")


class Earlier:
    """Evaluations beside `folder` whose provenance differs from its own in the metrics alone. They are looked at when they are
    first needed."""

    def __init__(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        self.folder, self._wanted = folder, _but_metrics(provenance)
        self._makers = _answering(provenance)
        self._found: list[tuple[Path, dict[Key, SettingResult]]] | None = None

    def result(self, setting: Setting) -> tuple[Path, SettingResult] | None:
        """(folder, result) of the same setting in one of them, if its predictions are there and whole."""
        if self._found is None:
            self._found = self._read()
        for folder, results in self._found:
            result = same_setting(results, setting)
            if result is not None and _rows(folder, result) is not None:
                return folder, result
        return None

    def rows(self, setting: Setting) -> tuple[list[dict[str, Any]], float, dict[str, Any]] | None:
        """(prediction rows without scores, seconds that answering took, what the result tells of how they were made)."""
        found = self.result(setting)
        if found is None:
            return None
        folder, result = found
        rows = _rows(folder, result)
        if rows is None:
            return None
        plain = [{**{k: v for k, v in row.items() if k not in _JUDGED}, "scores": {}} for row in rows]
        made = {name: result.extra[name] for name in _MADE if name in result.extra}
        return plain, result.seconds, {**made, "answers_from": folder.name}

    def _read(self) -> list[tuple[Path, dict[Key, SettingResult]]]:
        start = self.folder.name.rpartition("-")[0]
        found = []
        for path in sorted(self.folder.parent.glob(f"{start}-*/{RESULTS}")):
            if path.parent == self.folder:
                continue
            try:
                results, provenance = read_results(path.parent)
            except StoreError:
                continue
            if _but_metrics(provenance) == self._wanted and not _answering(provenance).difference(self._makers):
                found.append((path.parent, {key_of(result): result for result in results}))
        return found


def _rows(folder: Path, result: SettingResult) -> list[dict[str, Any]] | None:
    """The setting's prediction rows; None where the file is gone or damaged: it is answered again."""
    try:
        return read_predictions(predictions_file(folder, *key_of(result)))
    except StoreError:
        return None


def key_of(result: SettingResult) -> Key:
    """The name of a stored setting."""
    return result.method, result.shots, result.seed


def same_setting(results: Mapping[Key, SettingResult], setting: Setting) -> SettingResult | None:
    """The result of this very setting, whatever it is called there; None where there is none."""
    named = results.get(setting.key)
    for result in [*([named] if named else []), *results.values()]:
        same = (result.shots, result.seed) == (setting.shots, setting.seed)
        if same and result.extra.get("digest") == setting.digest:
            return result
    return None


def _but_metrics(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What decides answers beside weights and versions: all but the metrics."""
    configuration = {k: v for k, v in dict(provenance.get("configuration", {})).items() if k != "metrics"}
    return {"configuration": configuration, "data": provenance.get("dataset_options", {})}


def _answering(provenance: Mapping[str, Any]) -> Makers:
    """What made the answers, without what judged them."""
    found = Makers.of(provenance)
    return Makers({k: v for k, v in found.plugins.items() if not k.startswith("metrics/")}, found.weights)
