"""Records of an evaluation: an answered query, and what is found of a setting and of all settings together. JSON values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

from icltool.contracts.json import Json

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class SettingKey(NamedTuple):
    """What names a setting within an evaluation: the method as the table calls it, demonstrations per prompt, seed."""

    method: str
    shots: int
    seed: int


class Prediction(TypedDict):
    """One answered query: `icd_ids` in prompt order, the exact `prompt`, the model's `raw` text and the `answer` cut from it,
    `scores` by metric, scaled as in tables (None: no number).

    Where choices were ranked, `log_probs` has one for each. `shared` counts the demonstrations that share something with the
    query, by kind; `copied` are the ids of those whose label the answer repeats; `gain` is the score's over zero-shot.
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
    shared: NotRequired[dict[str, int]]
    copied: NotRequired[list[int]]
    gain: NotRequired[dict[str, float | None]]


class RunFacts(TypedDict, total=False):
    """How answers were made: when and by which releases, on which device, in which precision, with which generation options;
    `weights` stands for weights, precision and prompt format."""

    date: str
    icltool: str
    torch: str
    transformers: str
    device: str
    precision: str
    weights: str
    generation: dict[str, Json]


class Cost(TypedDict):
    """What a query costs, on average over `queries`: None where it is not known. `call` is when it was measured, the same for
    all settings of a call; `uncounted` names what FLOPs are without."""

    queries: int
    device: str
    prompt_tokens: float | None
    flops: float | None
    seconds: float
    call: str
    uncounted: NotRequired[str]


class Copies(TypedDict):
    """Answers that repeat a demonstration's label: how many, their share of all, and the share of them that is right."""

    answers: int
    share: float
    right: float | None


class Gains(TypedDict):
    """Against zero-shot: what that was, and by metric the numbers of queries and the difference of the figures."""

    against: dict[str, Json]
    metrics: dict[str, dict[str, float]]


class Order(TypedDict):
    """The answers to one further order of the demonstrations; figures by metric."""

    order: int
    seconds: float
    figures: dict[str, float]


class Orders(TypedDict):
    """Further orders of the demonstrations; once all are there, how figures and answers differ between them."""

    each: list[Order]
    count: NotRequired[int]
    metrics: NotRequired[dict[str, dict[str, float]]]
    changed: NotRequired[float]


class LearnedFile(TypedDict):
    """The file of an intervention, or of fine-tuned weights, and what it says of how it was made."""

    file: str
    about: dict[str, Json]
    parameters: NotRequired[int]
    remark: NotRequired[str]


class Choosing(TypedDict):
    """What asking the model for demonstrations took: prompts, of all queries."""

    prompts: int


class SettingFacts(TypedDict, total=False):
    """What is known of a setting beside its figures. `digest` stands for all that decides its demonstrations or weights; `by`
    has figures by column, value and metric; `seeds` and `sd` (by metric) are of a mean over seeds alone."""

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
    gains: Gains
    orders: Orders
    seeds_alike: list[int]
    cost: Cost
    seeds: list[int]
    sd: dict[str, float]


class Difference(TypedDict):
    """A paired difference a - b of two methods' figures; `a_shots` where a has other shots than b."""

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
    """What the leak guard keeps away: its kinds, the size of the index set, and rows of it per query, by kind and "any"."""

    kinds: list[str]
    index: int
    kept_away: dict[str, float]


class Analysis(TypedDict, total=False):
    """What comparing the settings of a call found. `key` stands for what it was made of."""

    key: str
    guard: Guarded
    seeds: list[SeedMean]
    differences: list[Difference]


class SubsetFacts(TypedDict):
    """The file that the index set was restricted by, how many of its examples took part, the split of the queries that it was
    learned from (None: it does not say), and how it was made."""

    file: str
    examples: int
    queries: str | None
    made: Mapping[str, Json]


class EvaluationProvenance(TypedDict, total=False):
    """What decided all results of an evaluation: the resolved configuration, versions of components, weights, and the options
    that the data set was prepared with; the subset of the index set that methods were restricted to, if any."""

    configuration: dict[str, Json]
    plugins: dict[str, str]
    weights: dict[str, str]
    dataset_options: Mapping[str, Json]
    index_subset: SubsetFacts


def facts_without(facts: SettingFacts, names: Collection[str]) -> SettingFacts:
    """The same facts but for these."""
    return cast(SettingFacts, {name: value for name, value in facts.items() if name not in names})
