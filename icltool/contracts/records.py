"""Records that pass between components: examples, and the sequences that beam search found for a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from icltool.contracts.arrays import Float64Array, IntArray
from icltool.contracts.randomness import keyed_generator
from icltool.errors import DataError

#: Where an image stands within a text, for examples whose images have places there (see Example).
IMAGE_MARKER = "<image>"


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled example: a query, or an in-context demonstration (ICD).

    `id` is unique within its split. `image` is an absolute path, with the regions that the task is about as a fragment
    (see `icltool.contracts.images`), or "" for text-only data. `text` is what retrieval by text compares (captions: the first
    caption; vqa: the question; inference: the clue). `question` is what is asked, or the clue that an inference starts from;
    `style` the personality that a caption is written in. `references` are all captions or all ten
    answers; `raw_references` are what the annotators typed, one for each of them, where the references are a normalised
    form of it (OK-VQA's stemmed answers), else (). `choices` are the labels that a classification ranks, in the data
    set's order. `group` names near-duplicates of one another ("" for none); the leak guard keeps a query and its
    near-duplicates apart, and confidence intervals are clustered by it.

    An example with several images has the further ones in `more_images`, and their identities in `more_image_ids`. All of
    them stand before the text, in order. With `images_in_text` each IMAGE_MARKER in the texts that a prompt shows is the
    place of the next image instead; their numbers must agree. Without it a marker in a text is text.

    `fields` are further texts by name, which a task can ask for: a hint, a headline. `aspects` are what figures are broken
    down by, besides the types of question and answer, as {name: value}: a subject, a domain. `rationale` is the reasoning
    that leads to the label. Where the task is to find a rule in the demonstrations, a query has the name of its `rule`, and
    an example of the index set one label for each rule in `labels`: it is shown with the label of the query's rule (see
    `shown_to`), and as a query itself it is asked by one of its rules (see `as_query`). `support` are the ids of the
    examples that may be shown to a query, () for all; in an episode, those of the query's own class come first. `followed_by`
    are examples that always stand right after this one in a prompt; `images` and `image_ids` of an example of the index set
    include theirs.
    """

    id: int
    image: str
    image_id: int
    text: str
    label: str
    references: tuple[str, ...]
    question: str = ""
    group: str = ""
    question_type: str = ""
    answer_type: str = ""
    choices: tuple[str, ...] = ()
    raw_references: tuple[str, ...] = ()
    style: str = ""
    more_images: tuple[str, ...] = ()
    more_image_ids: tuple[int, ...] = ()
    images_in_text: bool = False
    rationale: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    aspects: Mapping[str, str] = field(default_factory=dict, hash=False)
    rule: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    support: tuple[int, ...] = ()
    followed_by: tuple[Example, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """All its images, in prompt order; () for text-only data."""
        own = (self.image, *self.more_images) if self.image else ()
        return (*own, *(image for example in self.followed_by for image in example.images))

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The identities of all its images (of text-only data, that of the text)."""
        own = (self.image_id, *self.more_image_ids)
        return (*own, *(image_id for example in self.followed_by for image_id in example.image_ids))

    def without_images(self) -> Example:
        """The example as text alone."""
        others = tuple(example.without_images() for example in self.followed_by)
        return replace(self, image="", more_images=(), more_image_ids=(), images_in_text=False, followed_by=others)

    def shares_image(self, other: Example) -> bool:
        """Whether any image of one is an image of the other."""
        return not set(self.image_ids).isdisjoint(other.image_ids)


def shown_to(example: Example, query: Example) -> Example:
    """The example as a demonstration for the query: with its label for the query's rule, if it has labels for rules.

    Raises DataError if none of them is for that rule.
    """
    if not query.rule or not example.labels:
        return example
    label = example.labels.get(query.rule)
    if label is None:
        raise DataError(
            f"example {example.id} has no label for the rule {query.rule!r} of query {query.id}",
            f"it has labels for {', '.join(example.labels)}",
        )
    return _by_rule(example, label)


def shown(examples: Iterable[Example], query: Example) -> list[Example]:
    """The demonstrations of a query as they stand in its prompt: each with its label for the query's rule, and before those
    that follow it. Raises as `shown_to`."""
    examples_in_order: list[Example] = []
    for example in examples:
        head = shown_to(example, query)
        examples_in_order += [replace(head, followed_by=()), *head.followed_by] if head.followed_by else [head]
    return examples_in_order


def as_query(example: Example) -> Example:
    """The example as a query. An example of the index set with a label for each rule gets one rule, drawn by its id, and the
    label of that rule; any other example is a query as it is."""
    if example.rule or not example.labels:
        return example
    rules = sorted(example.labels)
    rule = rules[int(keyed_generator(0, "queries.rules", example.id).integers(len(rules)))]
    return replace(_by_rule(example, example.labels[rule]), rule=rule)


def _by_rule(example: Example, label: str) -> Example:
    """The example with one of its `labels` as its label."""
    text = label if example.text == example.label else example.text
    return replace(example, label=label, references=(label,), raw_references=(), text=text, labels={})


def blanked(query: Example) -> Example:
    """The query without all that tells its answer, as a retriever may see it: label "", no references, no type of
    answer, no aspects, no rationale; no text where that is the answer (of a caption). Its choices are kept."""
    answers = {query.label, *query.references, *query.raw_references}
    text = "" if query.text in answers else query.text
    return replace(
        query,
        label="",
        references=(),
        raw_references=(),
        answer_type="",
        text=text,
        rationale="",
        labels={},
        aspects={},
        followed_by=(),
    )


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The beams that survived for one query, best first. B beams of K ICDs out of C candidates.

    `icd_ids` int64 [B, K] are in prompt order (the last stands next to the query). `step_scores` float64 [B, K] are the
    gains in the order in which the search added the ICDs, whatever the construct order. `scores` float64 [B] is what
    the beams were ranked by. `values` float64 [B] and `base_value` are the scorer's value f(S, x) of the finished
    sequence and of the empty one; `log_probs` float64 [B] and `base_log_prob` the target's summed log-probability in
    nats under each (NaN where the scorer computes none). `candidates` int64 [C] is the pool, in sampled order.
    """

    query_id: int
    candidates: IntArray
    icd_ids: IntArray
    scores: Float64Array
    step_scores: Float64Array
    values: Float64Array
    log_probs: Float64Array
    base_value: float
    base_log_prob: float
