"""Answers that an evaluation by other metrics left: another metric needs no other answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icltool.errors import StoreError
from icltool.evaluation.settings import Setting
from icltool.store.evaluations import RESULTS, SettingResult, predictions_file, read_predictions, read_results

#: What a metric adds to a prediction row.
_JUDGED = ("gain",)
#: What of a result says how its answers were made.
_MADE = ("intervention", "finetuned")


class Earlier:
    """Evaluations beside `folder` whose provenance differs from its own in the metrics alone. They are looked at when they are
    first needed."""

    def __init__(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        self.folder, self._wanted = folder, _but_metrics(provenance)
        self._found: list[tuple[Path, dict[tuple[str, int, int], SettingResult]]] | None = None

    def result(self, setting: Setting) -> tuple[Path, SettingResult] | None:
        """(folder, result) of the same setting in one of them, if its predictions are there."""
        if self._found is None:
            self._found = self._read()
        for folder, results in self._found:
            result = results.get(setting.key)
            if result is None or result.extra.get("digest") != setting.digest:
                continue
            if predictions_file(folder, *setting.key).is_file():
                return folder, result
        return None

    def rows(self, setting: Setting) -> tuple[list[dict[str, Any]], float, dict[str, Any]] | None:
        """(prediction rows without scores, seconds that answering took, what the result tells of how they were made)."""
        found = self.result(setting)
        if found is None:
            return None
        folder, result = found
        try:
            rows = read_predictions(predictions_file(folder, *setting.key))
        except StoreError:  # damaged: answered again
            return None
        plain = [{**{k: v for k, v in row.items() if k not in _JUDGED}, "scores": {}} for row in rows]
        made = {name: result.extra[name] for name in _MADE if name in result.extra}
        return plain, result.seconds, {**made, "answers_from": folder.name}

    def _read(self) -> list[tuple[Path, dict[tuple[str, int, int], SettingResult]]]:
        start = self.folder.name.rpartition("-")[0]
        found = []
        for path in sorted(self.folder.parent.glob(f"{start}-*/{RESULTS}")):
            if path.parent == self.folder:
                continue
            try:
                results, provenance = read_results(path.parent)
            except StoreError:
                continue
            if _but_metrics(provenance) == self._wanted:
                found.append((path.parent, {(r.method, r.shots, r.seed): r for r in results}))
        return found


def _but_metrics(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What decides answers: all but the metrics, and but the versions of what judges."""
    configuration = {k: v for k, v in dict(provenance.get("configuration", {})).items() if k != "metrics"}
    plugins = {k: v for k, v in dict(provenance.get("plugins", {})).items() if not k.startswith("metrics/")}
    return {"configuration": configuration, "plugins": plugins, "data": provenance.get("dataset_options", {})}
