"""A learner of evaluations to test with: an example's score is the mean over the lists that show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from icltool.contracts import EvaluationSet, Progress, TrainingOutcome
from icltool.store.subsets import Subset, write_subset


class MeanScores:
    """Writes the `size` examples of the highest mean, as `icltool.EvaluationLearner` says."""

    needs = frozenset({"evaluations", "labels"})

    def __init__(self, size: int = 8) -> None:
        self.size = size

    def train(self, data: EvaluationSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        means = np.array([row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else np.nan for row in data.scores])
        values = np.full(len(data.index), np.nan)
        for example in np.unique(data.lists[data.lists >= 0]).tolist():
            of_it = means[(data.lists == example).any(axis=1) & ~np.isnan(means)]
            values[example] = of_it.mean() if len(of_it) else np.nan
        ranked = np.argsort(-values, kind="stable")
        chosen = np.sort([row for row in ranked.tolist() if not np.isnan(values[row])][: self.size])
        scores = {int(data.index.ids[row]): float(values[row]) for row in chosen}
        path = folder / "last.json"
        fingerprint = data.provenance.get("dataset_fingerprint")
        record = {"learner": "mean-scores", "labels": sorted({data.index.labels[row] for row in chosen})}
        write_subset(
            path,
            Subset(scores, fingerprint=None if fingerprint is None else str(fingerprint), queries="train", made=record),
        )
        return TrainingOutcome({"last": path}, [{"mean": float(np.nanmean(values))}])
