"""Records of an evaluation, as JSON values: an answered query, the facts about a setting, and the analysis of all
settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

from icltool.contracts.json import Json

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class SettingKey(NamedTuple):
    """The key of a setting within an evaluation: the method as named in the table, demonstrations per prompt, seed."""

    method: str
    shots: int
    seed: int


class Prediction(TypedDict):
    """One answered query: `icd_ids` in prompt order, the exact `prompt`, the model's `raw` text and the `answer` cut from
    it, `scores` by metric, scaled as in tables (None: not a number).

    If choices were ranked, `log_probs` has one for each. `shared` counts the demonstrations that share an image, group,
    question or text with the query, by kind; `copied` are the ids of those whose label the answer repeats; `gain` is the
    gain over the zero-shot score, by metric.
    """

    query_id: int
    group: str
    icd_ids: list[int]
    prompt: str
    images: list[str]
    raw: str
    answer: str
    log_probs: NotRequired[dict[str, float]]
    references: list[str]
    raw_references: NotRequired[list[str]]
    scores: dict[str, float | None]
    question_type: NotRequired[str]
    answer_type: NotRequired[str]
    aspects: NotRequired[dict[str, str]]
    shared: NotRequired[dict[str, int]]
    copied: NotRequired[list[int]]
    gain: NotRequired[dict[str, float | None]]


class RunFacts(TypedDict, total=False):
    """How answers were generated: date, releases, device, precision and generation options; `weights` is a fingerprint of
    weights, precision and prompt format."""

    date: str
    icltool: str
    torch: str
    transformers: str
    device: str
    precision: str
    weights: str
    generation: dict[str, Json]


class Cost(TypedDict):
    """The mean cost of a query over `queries` queries; None if unknown. `call` is the time of the measurement, the same for
    all settings of a call; `uncounted` names what the FLOPs leave out."""

    queries: int
    device: str
    prompt_tokens: float | None
    flops: float | None
    seconds: float
    call: str
    uncounted: NotRequired[str]


class Copies(TypedDict):
    """Answers that repeat a demonstration's label: their number, their share of all answers, and the share of them that is
    right."""

    answers: int
    share: float
    right: float | None


class Gains(TypedDict):
    """The comparison with zero-shot: its setting, and by metric the numbers of queries and the difference of the
    figures."""

    against: dict[str, Json]
    metrics: dict[str, dict[str, float]]


class Order(TypedDict):
    """The results of another order of the demonstrations; figures by metric."""

    order: int
    seconds: float
    figures: dict[str, float]


class Orders(TypedDict):
    """Other orders of the demonstrations and, once all are complete, how figures and answers differ between them."""

    each: list[Order]
    count: NotRequired[int]
    metrics: NotRequired[dict[str, dict[str, float]]]
    changed: NotRequired[float]


class LearnedFile(TypedDict):
    """The file of an intervention or of fine-tuned weights, and its record of how it was created."""

    file: str
    about: dict[str, Json]
    parameters: NotRequired[int]
    remark: NotRequired[str]


class Choosing(TypedDict):
    """The cost of choosing demonstrations with the model: the number of prompts, over all queries."""

    prompts: int


class SettingFacts(TypedDict, total=False):
    """The facts about a setting besides its figures. `digest` identifies all that decides its demonstrations or weights;
    `by` has figures by column, value and metric; `unreadable` counts the answers that nothing could be extracted from; only a
    mean over seeds has `seeds` and `sd` (by metric)."""

    digest: str
    options: dict[str, Json]
    plugin: str
    run: RunFacts
    answers_from: str
    intervention: LearnedFile
    finetuned: LearnedFile
    choosing: Choosing
    by: dict[str, dict[str, dict[str, float]]]
    leaks: dict[str, int]
    copies: Copies
    unreadable: int
    gains: Gains
    orders: Orders
    seeds_alike: list[int]
    cost: Cost
    seeds: list[int]
    sd: dict[str, float]


class Difference(TypedDict):
    """A paired difference a - b of two methods' figures; `a_shots` if a has a different number of shots than b."""

    shots: int
    a_shots: NotRequired[int]
    a: str
    b: str
    metric: str
    mean: float
    low: float
    high: float
    p: float


class SeedMean(TypedDict):
    """The mean over several seeds of a method: by metric "mean", "low", "high", "sd", "min", "max"."""

    method: str
    shots: int
    seeds: list[int]
    metrics: dict[str, dict[str, float]]


class Guarded(TypedDict):
    """What the leak guard excludes: its kinds, the size of the index set, and the rows excluded per query, by kind and
    "any"."""

    kinds: list[str]
    index: int
    kept_away: dict[str, float]


class Analysis(TypedDict, total=False):
    """The comparison of the settings of a call. `key` identifies what was compared."""

    key: str
    guard: Guarded
    seeds: list[SeedMean]
    differences: list[Difference]


class SubsetFacts(TypedDict):
    """The file that restricted the index set, how many of its examples took part, the split of the queries that it was
    learned from (None if not recorded), and how it was created."""

    file: str
    examples: int
    queries: str | None
    made: Mapping[str, Json]


class EvaluationProvenance(TypedDict, total=False):
    """What determined the results of an evaluation: the resolved configuration, versions of components, weights, the
    options that the data set was prepared with, and the subset of the index set that methods were restricted to, if any."""

    configuration: dict[str, Json]
    plugins: dict[str, str]
    weights: dict[str, str]
    dataset_options: Mapping[str, Json]
    index_subset: SubsetFacts


def facts_without(facts: SettingFacts, names: Collection[str]) -> SettingFacts:
    """The facts without these."""
    return cast(SettingFacts, {name: value for name, value in facts.items() if name not in names})
