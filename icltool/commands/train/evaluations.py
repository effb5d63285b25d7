"""Training on stored evaluations of train queries: demonstrations, and the model's answers after them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.commands.train.job import common_identity
from icltool.commands.train.options import TrainConfig
from icltool.config.identity import makers
from icltool.contracts import Float64Array, IntArray, Progress, TrainingOutcome
from icltool.contracts.arrays import BoolArray
from icltool.contracts.evaluation import Prediction
from icltool.contracts.json import Json
from icltool.contracts.learner import EvaluationLearner, EvaluationSet, HasVariant
from icltool.errors import ConfigError, StoreError
from icltool.store.arrays import embedded_by, index_set, open_embeddings, rows_of
from icltool.store.evaluations import Evaluation, SettingResult, read_evaluation
from icltool.store.makers import Makers
from icltool.store.provenance import learned

if TYPE_CHECKING:
    from icltool.store.embeddings import EmbeddingFile
    from icltool.store.records import PreparedDataset
    from icltool.store.workspace import Workspace

#: The options of an evaluation that decide which demonstrations a query gets, or how answers are judged. All others decide
#: the answers, so evaluations that are learned from together must agree in them.
_CHOICE = ("metrics", "leak_guard", "index_size", "index_subset", "query_size", "test_size")
_COMMAND = "icltool evaluate --queries train --query-size 500"


@dataclass(frozen=True)
class Answers:
    """The answers in several settings as an EvaluationSet has them, with `lists` int64 [S, K] of ids in place of rows;
    `padding` bool [S, K] is true where a list is shorter, and ids mean nothing."""

    lists: IntArray
    padding: BoolArray
    query_ids: IntArray
    scores: Float64Array
    references: tuple[tuple[str, ...], ...]
    log_probs: Float64Array | None
    choices: tuple[tuple[str, ...], ...]

    def content_hash(self) -> str:
        """32 hex characters of all of it."""
        arrays = [self.lists, self.padding, self.query_ids, self.scores]
        arrays += [] if self.log_probs is None else [self.log_probs]
        hasher = hashlib.blake2b(repr((self.references, self.choices)).encode(), digest_size=16)
        for array in arrays:
            hasher.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()


class EvaluationJob:
    """A training on evaluations; see Job. Raises StoreError if an evaluation is missing, damaged, of another data set or of
    validation queries, ConfigError if there is none or they do not belong together."""

    usage = ""

    def __init__(
        self,
        config: TrainConfig,
        workspace: Workspace,
        dataset: PreparedDataset,
        learner: EvaluationLearner,
        options: Mapping[str, object],
    ) -> None:
        if config.sequences is not None:
            raise ConfigError(f"--sequences: {config.learner} learns from evaluations", "give --evaluations FOLDER")
        if not config.evaluations:
            raise ConfigError(
                f"{config.learner} learns from evaluations, but none is given",
                f"give --evaluations FOLDER, made by `{_COMMAND}`",
            )
        self.learner, self.dataset = learner, dataset
        self.evaluations = [_opened(Path(path), dataset) for path in config.evaluations]
        _check_alike(self.evaluations)
        settings = [(e, result) for e in self.evaluations for result in e.results if _shows_lists(result)]
        if not settings:
            raise ConfigError(
                f"{', '.join(map(str, config.evaluations))}: no setting has demonstrations",
                "evaluate with demonstrations, for example --shots 4",
            )
        self.metric = _common_metric([result for _, result in settings])
        self.answers = collected((e.predictions(result.key) for e, result in settings), self.metric)
        configuration = _configuration(self.evaluations[0])
        self.variant = learner.variant if isinstance(learner, HasVariant) else str(configuration.get("model", ""))
        self.embeddings: EmbeddingFile | None = None
        if learner.needs & {"image", "text"}:
            encoder = embedded_by(workspace, dataset, config.encoder, learner.needs)
            self.embeddings = open_embeddings(workspace, dataset, "train", encoder)
        embeddings = self.embeddings
        self.identity: dict[str, object] = {
            **common_identity(config, learner, options, dataset),
            "queries": "train",
            "metric": self.metric,
            "evaluations_fingerprint": self.answers.content_hash(),
            "embeddings_fingerprint": None if embeddings is None else embeddings.fingerprint,
        }

    def provenance(self) -> dict[str, object]:
        """See Job."""
        return learned(
            self.identity,
            makers([("learners", str(self.identity["learner"]))], {}),
            evaluations=[evaluation.folder.resolve().name for evaluation in self.evaluations],
            evaluations_configuration=_configuration(self.evaluations[0]),
        )

    def train(self, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See Job."""
        data = self._evaluation_set()
        lists, queries = data.scores.shape
        progress.detail(f"{lists:,} lists of demonstrations, {queries:,} queries, by {data.metric} -> {folder}")
        return self.learner.train(data, folder, seed, progress)

    def _evaluation_set(self) -> EvaluationSet:
        answers = self.answers
        index = index_set(self.dataset.split("train"), self.learner.needs - {"evaluations"}, self.embeddings)
        rows = np.full(answers.lists.shape, -1, dtype=np.int64)
        present = ~answers.padding
        rows[present] = rows_of(
            answers.lists[present], index.ids, self.evaluations[0].folder, f"run `{_COMMAND}` again"
        )
        return EvaluationSet(
            index=index,
            lists=rows,
            query_ids=answers.query_ids,
            scores=answers.scores,
            metric=self.metric,
            references=answers.references,
            log_probs=answers.log_probs,
            choices=answers.choices,
            provenance=self.provenance(),
        )


def collected(settings: Iterable[Sequence[Prediction]], metric: str) -> Answers:
    """The answers in these settings, by distinct list and query; lists ascend by their ids, a shorter one first. Of two answers
    to a query after the same list the first counts."""
    answers: dict[tuple[tuple[int, ...], int], tuple[float, Mapping[str, float | None]]] = {}
    queries: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for rows in settings:
        for row in rows:
            query = row["query_id"]
            log_probs: Mapping[str, float | None] = row.get("log_probs") or {}
            queries.setdefault(query, (tuple(row["references"]), tuple(log_probs)))
            answers.setdefault((tuple(row["icd_ids"]), query), (_number(row["scores"].get(metric)), log_probs))
    known = sorted({icds for icds, _ in answers})
    ids = sorted(queries)
    width, choices = max(map(len, known), default=0), tuple(queries[one][1] for one in ids)
    lists = np.zeros((len(known), width), dtype=np.int64)
    padding = np.ones((len(known), width), dtype=np.bool_)
    for place, icds in enumerate(known):
        lists[place, : len(icds)], padding[place, : len(icds)] = icds, False
    scores = np.full((len(known), len(ids)), np.nan)
    table = np.full((*scores.shape, max(map(len, choices), default=0)), np.nan)
    at = {icds: place for place, icds in enumerate(known)}, {one: place for place, one in enumerate(ids)}
    for (icds, query), (score, log_probs) in answers.items():
        s, d = at[0][icds], at[1][query]
        scores[s, d] = score
        table[s, d, : len(choices[d])] = [_number(log_probs.get(choice)) for choice in choices[d]]
    ranked = table.shape[2] > 0
    references = tuple(queries[one][0] for one in ids)
    query_ids = np.array(ids, dtype=np.int64)
    return Answers(lists, padding, query_ids, scores, references, table if ranked else None, choices if ranked else ())


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _configuration(evaluation: Evaluation) -> dict[str, Json]:
    return evaluation.provenance.get("configuration", {})


def _opened(path: Path, dataset: PreparedDataset) -> Evaluation:
    """The evaluation in a folder; it must have train queries of this data set."""
    evaluation = read_evaluation(path)
    configuration = _configuration(evaluation)
    if configuration.get("queries", "validation") != "train":
        raise StoreError(
            f"{path} has queries of the validation split, which must not be learned from", f"run `{_COMMAND}`"
        )
    if configuration.get("dataset_fingerprint") != dataset.fingerprint:
        raise StoreError(
            f"{path} evaluates another data set, or another version, than {dataset.name} ({dataset.task})",
            "check --dataset and --task, or evaluate again",
        )
    return evaluation


def _check_alike(evaluations: Sequence[Evaluation]) -> None:
    """ConfigError if two evaluations have other models or options, StoreError if they have other weights or releases."""
    first, *others = evaluations
    mine = _configuration(first)
    for other in others:
        theirs = _configuration(other)
        keys = [key for key in dict.fromkeys([*mine, *theirs]) if key not in _CHOICE]
        differing = [key for key in keys if mine.get(key) != theirs.get(key)]
        if differing:
            named = ", ".join(f"{key.replace('_', ' ')} ({mine.get(key)}, {theirs.get(key)})" for key in differing)
            raise ConfigError(
                f"{first.folder} and {other.folder} differ in {named}",
                "give evaluations of one model with the same options",
            )
        if difference := Makers.of(first.provenance).difference(Makers.of(other.provenance)):
            raise StoreError(f"{first.folder} and {other.folder} were made with {difference}", "evaluate again")


def _shows_lists(result: SettingResult) -> bool:
    """Whether it has demonstrations, with neither an intervention nor fine-tuned weights."""
    return result.shots > 0 and not {"intervention", "finetuned"} & result.extra.keys()


def _common_metric(results: Sequence[SettingResult]) -> str:
    """The first metric that all settings have. ConfigError if there is none."""
    for name in results[0].metrics:
        if all(name in result.metrics for result in results):
            return name
    raise ConfigError("the evaluations have no metric in common", "evaluate with the same --metric")
